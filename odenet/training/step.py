"""One iteration of training. On a GPU it is captured once and repeated as one CUDA graph.

These networks are small: launched one by one, their kernels wait for the host. What a graph repeats must not ask the
host, nor find its tensors elsewhere: images, labels, learning rate and random draws are filled in before it.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from odenet.arithmetic import autocast, products
from odenet.enums import CudaGraphs, Gradient
from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.model import DepthNet
from odenet.networks.perturbation import Draws, HeldDraws, Perturbation
from odenet.training.config import ExperimentConfig, RuntimeConfig
from odenet.training.optim import FACTOR, scale_depth_gradients
from odenet.training.optim_config import DepthMetric
from odenet.training.regularization import roughness

WARM_UP = 3  # iterations before the capture: kernels are chosen, the optimizer's state is made


def graph_obstacle(config: ExperimentConfig, runtime: RuntimeConfig, model: DepthNet) -> str:
    """Say what keeps an iteration from being one CUDA graph; empty if nothing does.

    Raises:
        ValueError: something does, and runtime.cuda_graphs is `always`.
    """
    recomputes = config.model.gradient is not Gradient.direct
    adaptive = any(depth.course.scheme in ADAPTIVE for depth in model.depths())
    obstacles = {
        "runtime.cuda_graphs=never": runtime.cuda_graphs is CudaGraphs.never,
        "it runs on no CUDA device": runtime.torch_device().type != "cuda",
        "the steps of an adaptive scheme depend on the data": adaptive,
        "runtime.compile=true has graphs of its own": runtime.compile,
        "runtime.check_drift=true reads numbers between steps": runtime.check_drift,
        "recomputing steps with noise would keep the noise of all": recomputes and bool(config.regularization.noise),
    }
    reason = next((text for text, met in obstacles.items() if met), "")
    if reason and runtime.cuda_graphs is CudaGraphs.always:
        raise ValueError(f"runtime.cuda_graphs=always, but {reason}; auto and never are possible.")
    return reason


class TrainStep:
    """Forward and backward pass, scaling over depth and the optimizer's step, of a network at its present depth."""

    def __init__(
        self, model: DepthNet, optimizer: Optimizer, config: ExperimentConfig, forward: Callable[..., Tensor]
    ) -> None:
        """`forward` is the model, or what was compiled of it."""
        self._model, self._optimizer, self._config, self._forward = model, optimizer, config, forward
        self._device = next(model.parameters()).device

    def __call__(self, x_BCHW: Tensor, labels_B: Tensor, rate: float, seed: int) -> Tensor:
        """Do an iteration with this learning rate; `seed` is that of its random draws.

        Returns:
            the mean cross-entropy of the batch, detached, without the regularization. It is valid until the next call.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = float(np.float32(rate * group.get(FACTOR, 1.0)))  # as a graph holds it
        return self._advance(x_BCHW, labels_B, Draws(seed))

    def _advance(self, x_BCHW: Tensor, labels_B: Tensor, draws: Draws) -> Tensor:
        with products(self._config.training.precision):
            return self._iterate(x_BCHW, labels_B, draws)

    def _iterate(self, x_BCHW: Tensor, labels_B: Tensor, draws: Draws) -> Tensor:
        self._optimizer.zero_grad()
        regularization = self._config.regularization
        perturbation = None
        if regularization.stochastic_depth or regularization.noise:
            perturbation = Perturbation(regularization.stochastic_depth, regularization.noise, draws)
        with autocast(self._device, self._config.training.precision):
            loss = F.cross_entropy(self._forward(x_BCHW, perturbation).float(), labels_B)
        smoothness = regularization.smoothness
        objective = loss + smoothness * roughness(self._model) if smoothness else loss
        objective.backward()
        if self._config.optim.depth_metric is DepthMetric.l2:
            scale_depth_gradients(self._model)
        self._optimizer.step()
        return loss.detach()


class StaticStep(TrainStep):
    """The same on tensors that stay where they are; `repeat` is what a graph repeats.

    The first batch says how large those are that are repeated: of few images it is all of them. A smaller one, the last
    of an epoch, is done without: padding would enter batch norm.
    """

    def __init__(
        self, model: DepthNet, optimizer: Optimizer, config: ExperimentConfig, forward: Callable[..., Tensor]
    ) -> None:
        super().__init__(model, optimizer, config, forward)
        self._draws = HeldDraws(self._device)
        self._x_BCHW, self._labels_B = torch.empty(0), torch.empty(0)
        self._rates: list[tuple[Tensor, float]] = []
        for group in optimizer.param_groups:
            group["lr"] = torch.zeros((), device=self._device)
            self._rates.append((group["lr"], group.get(FACTOR, 1.0)))
            if "capturable" in group:  # of AdamW: its count of steps stays on the device, as a CUDA graph needs it
                group["capturable"] = True

    def __call__(self, x_BCHW: Tensor, labels_B: Tensor, rate: float, seed: int) -> Tensor:
        for held, factor in self._rates:
            held.fill_(rate * factor)
        if not len(self._x_BCHW):
            self._x_BCHW, self._labels_B = torch.empty_like(x_BCHW), torch.empty_like(labels_B)
        if len(x_BCHW) != len(self._x_BCHW):
            return self._advance(x_BCHW, labels_B, Draws(seed))
        self._x_BCHW.copy_(x_BCHW)
        self._labels_B.copy_(labels_B)
        self._draws.fill(seed)
        return self.repeat()

    def repeat(self) -> Tensor:
        """Do an iteration on what the tensors hold now."""
        return self._advance(self._x_BCHW, self._labels_B, self._draws)


class GraphStep(StaticStep):
    """The same as one CUDA graph, after some iterations without."""

    def __init__(
        self, model: DepthNet, optimizer: Optimizer, config: ExperimentConfig, forward: Callable[..., Tensor]
    ) -> None:
        super().__init__(model, optimizer, config, forward)
        self._done, self._loss = 0, torch.empty(0)
        self._graph: torch.cuda.CUDAGraph | None = None

    def repeat(self) -> Tensor:
        if self._graph is None:
            if self._done < WARM_UP:
                return self._beside()
            self._graph = torch.cuda.CUDAGraph()
            # Other threads of a worker may call CUDA meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._loss = super().repeat()
        self._graph.replay()
        return self._loss

    def _beside(self) -> Tensor:
        """Do an iteration on a stream of its own, as a capture needs it before."""
        self._done += 1
        stream, present = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(present)
        with torch.cuda.stream(stream):
            loss = super().repeat()
        present.wait_stream(stream)
        return loss
