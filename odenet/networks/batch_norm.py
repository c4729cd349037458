"""Batch normalisation by the batch's own statistics, with sums that are accurate in fp32.

torch's CPU kernel for channels_last adds the B H W values of a channel one after another: at (512, 16, 32, 32) the
variance is off by 1.6e-4, where the kernel for contiguous tensors is off by 1e-7. Here a tensor is B H rows of W C
neighbouring numbers, which fill the vector unit: at most `ROWS` rows are added up, then what came out of those, which
is as accurate as the contiguous kernel.

Shapes: `B` batch, `C` channels, `H W` space, `P` parts of at most `ROWS` rows; x and y are (B, C, H, W).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of every batch norm of every network, on the node axis or not.
EPS = 1e-5
MOMENTUM = 0.1
ROWS = 128  # that are added one after another

Normalised = tuple[Tensor, Tensor, Tensor]  # y, and the mean and the unbiased variance of each channel of x


def batch_norm(x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float | None = None) -> Normalised:
    """Normalise by the statistics of this batch: y = weight (x - mean) / sqrt(var + eps) + bias, var the biased one.

    Returns y, differentiable any number of times, forwards and backwards, and the mean and the unbiased variance (the
    one that running statistics are made of), which carry no gradient.
    """
    eps = EPS if eps is None else eps
    if _is_summed_in_order(x_BCHW):
        y, mean_C, var_C = _Normalisation.apply(x_BCHW, weight_C, bias_C, eps)
        n = x_BCHW.numel() // len(weight_C)
        return y, mean_C, var_C * (n / max(n - 1, 1))
    # With momentum 1 the kernel writes this batch's own statistics, which it computes anyway. Zeros, because it weighs
    # what was there by 0, and 0 times NaN is NaN.
    mean_C, var_C = torch.zeros_like(weight_C), torch.zeros_like(weight_C)
    y = F.batch_norm(x_BCHW, mean_C, var_C, weight_C, bias_C, training=True, momentum=1.0, eps=eps)
    return y, mean_C, var_C


class BatchNorm(nn.BatchNorm2d):
    """torch's BatchNorm2d with `batch_norm` in training mode, and `EPS` and `MOMENTUM` of its time of making."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS, momentum=MOMENTUM)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        y, mean_C, var_C = batch_norm(x_BCHW, self.weight, self.bias, self.eps)
        self._move_running(mean_C, var_C)
        return y

    @torch.no_grad()
    def _move_running(self, mean_C: Tensor, var_C: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(var_C, share)

    @property
    def num_features(self) -> int:
        """Refuse what SyncBatchNorm.convert_sync_batchnorm asks for first, so that it changes nothing before.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "SyncBatchNorm cannot take the place of this network's batch norms, whose statistics depend on depth: "
            "train it in one process. The number of channels is len(norm.weight)."
        )

    @num_features.setter
    def num_features(self, channels: int) -> None:
        self.__dict__["num_features"] = channels  # for repr


def _is_summed_in_order(x: Tensor) -> bool:
    """Return whether torch's kernel would add a channel's values one by one: channels_last on a CPU, fp32 or fp64.

    Half precision has larger errors of its own. Compilers and fake tensors have formulae of their own.
    """
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
    )


class _Normalisation(torch.autograd.Function):
    """(x, weight, bias, eps) to (y, mean, biased variance), x channels_last."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Normalised:
        mean, var = _statistics(x)
        scale = weight * (var + eps).rsqrt()
        return torch.addcmul(_wide(bias - mean * scale), x, _wide(scale)), mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Normalised) -> None:
        (x, weight, _, ctx.eps), (_, mean, var) = inputs, output
        ctx.mark_non_differentiable(mean, var)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.save_for_forward(x, weight, mean, var)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var = ctx.saved_tensors
        # For another derivative, or for many at once, which the fused kernel below cannot give.
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            direction, scale = _standardised(x, ctx.eps)
            grad_x = _wide(weight) * _tangent(direction, scale, grad_y)
            return grad_x, _sum(direction * grad_y), _sum(grad_y), None
        total, product = _sums(grad_y, x, mean)  # of grad_y, and of grad_y (x - mean)
        rsqrt, n = (var + ctx.eps).rsqrt(), x.numel() // len(weight)
        scale = weight * rsqrt
        slope = -scale * rsqrt.square() * product / n
        shift = -scale * total / n - slope * mean
        grad_x = torch.addcmul(_wide(shift), x, _wide(slope)).addcmul_(grad_y, _wide(scale))
        return grad_x, product * rsqrt, total, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, weight_t: Tensor, bias_t: Tensor, _: None) -> tuple[Tensor, None, None]:
        x, weight, *_rest = ctx.saved_tensors
        direction, scale = _standardised(x, ctx.eps)
        tangent = _wide(weight) * _tangent(direction, scale, x_t)
        return tangent + _wide(weight_t) * direction + _wide(bias_t), None, None

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Normalised, tuple[int, int, int]]:
        outputs = torch.vmap(_plain, in_dims, randomness="error")(*inputs)
        return outputs, (0, 0, 0)


def _plain(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Normalised:
    """Do the same by operations that can be differentiated and batched."""
    direction, _ = _standardised(x, eps)
    y = direction * _wide(weight) + _wide(bias)
    mean = _mean(x)
    return y, mean.detach(), _mean((x - _wide(mean)).square()).detach()


def _standardised(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x with mean 0 and variance 1, and the factor that made it so, (C, 1, 1)."""
    centred = x - _wide(_mean(x))
    scale = _wide((_mean(centred.square()) + eps).rsqrt())
    return centred * scale, scale


def _tangent(direction: Tensor, scale: Tensor, v: Tensor) -> Tensor:
    """Return the derivative of standardisation along v: symmetric, so also what a gradient v becomes."""
    return scale * (v - _wide(_mean(v)) - direction * _wide(_mean(direction * v)))


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel of a channels_last tensor."""
    channels, parts = x.shape[1], _parts(x)
    found = [torch.batch_norm_update_stats(part, None, None, 1.0) for part in parts]
    mean_PWC, var_PWC = (torch.stack(each).view(len(parts), -1, channels) for each in zip(*found, strict=True))
    share_P11 = x.new_tensor([len(part) for part in parts])[:, None, None] * (channels / x.numel())
    mean = (share_P11 * mean_PWC).sum((0, 1))
    return mean, (share_P11 * (mean_PWC - mean).square_().add_(var_PWC)).sum((0, 1))


def _sums(grad_y: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel's sums of grad_y and of grad_y (x - mean), in one pass: the gradients of an affine map."""
    channels, columns = len(mean), x.shape[1] * x.shape[3]
    mean_WC, one_WC = mean.repeat(x.shape[3]), mean.new_ones(columns)
    found = [
        torch.ops.aten.native_batch_norm_backward(
            grad_part, part, None, mean_WC, one_WC, None, None, False, 0.0, [False, True, True]
        )
        for grad_part, part in zip(_parts(grad_y), _parts(x), strict=True)
    ]
    products, totals = (torch.stack([sums[index] for sums in found]).view(-1, channels).sum(0) for index in (1, 2))
    return totals, products


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """Return views of a channels_last tensor, (up to `ROWS`, W C) each."""
    return x.permute(0, 2, 3, 1).reshape(len(x) * x.shape[2], -1).split(ROWS)


def _mean(x: Tensor) -> Tensor:
    return x.mean(0).mean((1, 2))


def _sum(x: Tensor) -> Tensor:
    return x.sum(0).sum((1, 2))


def _wide(vector_C: Tensor) -> Tensor:
    return vector_C[:, None, None]
