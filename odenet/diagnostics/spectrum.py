"""The leading eigenvalues of a rate's Jacobian where a network's images pass, and what a step makes of them.

Shapes: `E` eigenvalues.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from odenet.data.images import Images
from odenet.diagnostics.probing import copied, first_pixels, opened, stage_inputs, states
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier
from odenet.integrators.scheme import ExplicitRungeKutta, Stage, Stepping
from odenet.integrators.schemes import SCHEMES, Adaptive, Partitioned, TwoStep
from odenet.networks.blocks import DepthStage
from odenet.seeding import derive

Field = Callable[[Tensor], Tensor]
DENSE = 64  # entries of a state up to which all eigenvalues are taken
WHOLE = 1024  # and up to which the Jacobian is made once, 8 MiB, because a product costs more than its row
TOLERANCE = 1e-4  # relative, of an eigenvalue
RESTARTS = 10  # at most, of Arnoldi's iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Eigenvalues lambda of dR/dx, R the rate of dx/dtau = R(theta, x) over [0, T]; all stages, depths, images."""

    max_real: float | None  # None: Arnoldi's iteration found no eigenvalue
    max_imaginary: float | None
    log_norm: float  # the largest eigenvalue of a symmetric part: how fast a perturbation can grow at first
    amplification: float | None  # max |R(h lambda)|; None: see `reason`
    eigenvalues: tuple[np.ndarray, ...]  # complex, by stage; times `sizes` they stand in the region of stability
    sizes: tuple[float, ...]  # h of each stage
    reason: str = ""


def spectrum(classifier: Classifier, images: Images, *, count: int = 16, leading: int = 6) -> Spectrum:
    """Measure the spectrum at the first `count` images, at the beginning, in the middle and at the last step.

    Of each Jacobian the `leading` eigenvalues of largest modulus and of largest real part are taken (all of a small
    one), so that `amplification` is a lower bound. Of a second-order ODE x'' = R they are those of R: it is stable
    where they are real and not positive.

    Raises:
        ValueError: there are fewer images, or they are not shaped as the classifier's.
    """
    x_BCHW = first_pixels(classifier, images, count).double()
    exact = copied(classifier, torch.float64).requires_grad_(False)
    stages = exact.network.depth_stages()
    eigenvalues, log_norms = list[np.ndarray](), list[float]()
    for stage, inputs in zip(stages, stage_inputs(exact, x_BCHW), strict=True):
        found = [np.zeros(0, complex)]
        for field, state in _fields(stage, inputs):
            for jacobian in (Jacobian(field, one[None]) for one in state):
                found.append(leading_eigenvalues(jacobian, leading))
                log_norms.append(log_norm(jacobian))
        eigenvalues.append(np.concatenate(found))
    everything = np.concatenate(eigenvalues)
    course = stages[-1].depth.course
    reason = _no_amplification(course.scheme) or ("" if len(everything) else "no eigenvalue converged")
    sizes = tuple(stage.depth.course.size for stage in stages)
    factors = [] if reason else [amplification(course.scheme, h, e) for h, e in zip(sizes, eigenvalues, strict=True)]
    return Spectrum(
        max_real=float(everything.real.max()) if len(everything) else None,
        max_imaginary=float(np.abs(everything.imag).max()) if len(everything) else None,
        log_norm=float(np.nanmax(log_norms)),
        amplification=None if reason else float(np.concatenate(factors).max()),
        eigenvalues=tuple(eigenvalues),
        sizes=sizes,
        reason=reason,
    )


def _fields(stage: DepthStage, inputs: Tensor | tuple[Tensor, ...]) -> list[tuple[Field, Tensor]]:
    """Return the rate as a function of the state alone at three depths, and the states of all images there."""
    course = stage.depth.course
    if isinstance(SCHEMES[course.scheme], Adaptive):  # its own steps are not known
        course = replace(course, scheme=Scheme.rk4, steps=16)
    method, rate = SCHEMES[course.scheme], opened(stage, course)
    assert isinstance(method, Stepping)
    passed = states(stage, inputs, course)
    steps = dict.fromkeys((0, course.steps // 2, course.steps - 1))
    places = [Stage(step, course.steps, Fraction(0)) for step in steps]
    return [(partial(rate.slope, place), method.finish(passed[place.step])) for place in places]


class Jacobian:
    """The Jacobian J of a field at a state, as products with vectors of float64."""

    def __init__(self, field: Field, x: Tensor) -> None:
        self.size = x.numel()
        self._x = x.detach().clone().requires_grad_()
        self._whole: np.ndarray | None = None
        with torch.enable_grad():
            self._y = field(self._x)
            if self.size <= WHOLE:
                units = torch.eye(self.size, dtype=x.dtype, device=x.device).view(-1, *self._y.shape)
                (rows,) = torch.autograd.grad(self._y, self._x, units, is_grads_batched=True)
                self._whole = rows.reshape(self.size, self.size).numpy(force=True)
                return
            # J^T u is linear in u, so its derivative along v is J v: each product is then a walk along this graph, and
            # several times as fast as torch.func.jvp, which evaluates the field anew.
            self._u = torch.zeros_like(self._y).requires_grad_()
            (self._pulled,) = torch.autograd.grad(self._y, self._x, self._u, create_graph=True)

    def times(self, v: np.ndarray) -> np.ndarray:
        """Return J v."""
        if self._whole is not None:
            return self._whole @ v.reshape(-1)
        return self._walk(self._pulled, self._u, v)

    def symmetric_times(self, v: np.ndarray) -> np.ndarray:
        """Return (J + J^T) v / 2."""
        if self._whole is not None:
            return (self._whole @ v.reshape(-1) + v.reshape(-1) @ self._whole) / 2
        return (self.times(v) + self._walk(self._y, self._x, v)) / 2

    def _walk(self, output: Tensor, given: Tensor, v: np.ndarray) -> np.ndarray:
        direction = torch.tensor(v, dtype=output.dtype, device=output.device).view(output.shape)
        (found,) = torch.autograd.grad(output, given, direction, retain_graph=True)
        return found.flatten().numpy(force=True)


def leading_eigenvalues(jacobian: Jacobian, count: int = 6) -> np.ndarray:
    """Return the eigenvalues of a Jacobian that have the largest modulus or the largest real part.

    Arnoldi's iteration from one fixed start; those that it has not found after `RESTARTS` restarts are left out. Of a
    state of up to `DENSE` entries all eigenvalues are returned.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs  # type: ignore[import-untyped]

    size = jacobian.size
    if size <= max(DENSE, count + 1):
        return np.linalg.eigvals(np.stack([jacobian.times(unit) for unit in np.eye(size)], axis=1))
    operator = LinearOperator((size, size), matvec=jacobian.times, dtype=np.float64)
    found = []
    for which in ("LM", "LR"):
        try:
            values = eigs(
                operator, k=count, which=which, v0=_start(size), tol=TOLERANCE, maxiter=RESTARTS,
                return_eigenvectors=False,
            )  # fmt: skip
        except ArpackNoConvergence as error:
            values = error.eigenvalues
        found.append(np.asarray(values, complex))
    return np.concatenate(found)


def log_norm(jacobian: Jacobian) -> float:
    """Return the largest eigenvalue of the symmetric part of a Jacobian; NaN if it was not found."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    size, product = jacobian.size, jacobian.symmetric_times
    if size <= DENSE:
        return float(np.linalg.eigvalsh(np.stack([product(unit) for unit in np.eye(size)])).max())
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    try:
        (value,) = eigsh(
            operator, k=1, which="LA", v0=_start(size), tol=TOLERANCE, maxiter=50 * RESTARTS, return_eigenvectors=False
        )
    except ArpackNoConvergence:
        return float("nan")
    return float(value)


def _start(size: int) -> np.ndarray:
    return np.random.default_rng(derive(0, "arnoldi")).standard_normal(size)


def stability_function(method: ExplicitRungeKutta, z: np.ndarray) -> np.ndarray:
    """Return R(z), by which a step multiplies the solution of x' = lambda x, z = h lambda: a polynomial.

    >>> stability_function(SCHEMES[Scheme.euler], np.array([-1.0, 1j]))
    array([0.+0.j, 1.+1.j])
    """
    z = np.asarray(z, complex)
    slopes = list[np.ndarray]()  # times h
    for row, of_x in zip(method.a, method.of_x, strict=True):
        inner = sum((float(a) * slope for a, slope in zip(row, slopes, strict=True)), np.zeros_like(z))
        slopes.append(z * (of_x + inner))
    return 1 + sum((float(b) * slope for b, slope in zip(method.b, slopes, strict=True)), np.zeros_like(z))


def amplification(scheme: Scheme, h: float, eigenvalues_E: np.ndarray) -> np.ndarray:
    """Return by how much a step of length h multiplies the mode of each eigenvalue, at most: stable up to 1.

    Runge-Kutta: |R(h lambda)|. Schemes on a pair of states: the larger |r| of the two roots of their recurrence
    r^2 = (add + w) r + keep, w = (factor h)^power lambda, of Verlet r^2 = (2 + (h lambda)^2) r - 1.

    Raises:
        ValueError: the scheme has no such number, being adaptive or of learned coefficients.
    """
    reason = _no_amplification(scheme)
    if reason:
        raise ValueError(f"scheme={scheme.value}: {reason}.")
    method, lambda_E = SCHEMES[scheme], np.asarray(eigenvalues_E, complex)
    if isinstance(method, ExplicitRungeKutta):
        return np.abs(stability_function(method, h * lambda_E))
    if isinstance(method, Partitioned):
        return _larger_root(2 + (h * lambda_E) ** 2, -1.0)
    assert isinstance(method, TwoStep)
    return _larger_root(method.add + (method.factor * h) ** method.power * lambda_E, method.keep)


def _no_amplification(scheme: Scheme) -> str:
    method = SCHEMES[scheme]
    if isinstance(method, Adaptive):
        return "an adaptive scheme keeps its steps stable by itself"
    if not isinstance(method, ExplicitRungeKutta | Partitioned | TwoStep):
        return "its coefficients are learned and differ from step to step"
    return ""


def _larger_root(linear_E: np.ndarray, constant: float) -> np.ndarray:
    """Return the larger |r| of r^2 = linear r + constant."""
    root_E = np.sqrt(linear_E**2 + 4 * constant)
    return np.maximum(np.abs(linear_E + root_E), np.abs(linear_E - root_E)) / 2
