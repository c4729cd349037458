"""Fixed-step integration: odenet against a bare loop, torchdiffeq and torchdyn, forward and backward, interleaved.

One rate for all, R(t, h) = (1 - t) tanh(K h) with K a 3x3 convolution, N = 8, 32, 128 steps of Euler and RK4; time is
relative to a loop written out here. torchdiffeq's and torchdyn's rk4 are the 3/8 rule: four evaluations, as ours.
Then the errors of gradients on piecewise constant weights: a library that hands a float t to the rate has to read the
weights by int(t * N), and its continuous adjoint reads them one cell too far on its way back.

    python benchmarks/bench_integrate.py [--quick]
"""

from collections.abc import Callable
from functools import partial

import torch
from measure import Spread, installed, interleaved, parser, print_table, ratio, relative_error, write
from torch import Tensor, nn
from torch.nn import functional as F
from torchdiffeq import odeint, odeint_adjoint  # type: ignore[import-untyped]

from odenet.enums import Gradient, Scheme
from odenet.integrators.integrate import integrate, integrate_stages
from odenet.integrators.scheme import Course, OpenRate

STEPS = (8, 32, 128)
SCHEMES = (Scheme.euler, Scheme.rk4)
GOAL = 1.05  # of a bare loop
CHANNELS = 16

Solver = Callable[[nn.Module, Tensor, str, int], Tensor]  # (rate, h0, scheme, steps) -> h1


class SmoothRate(nn.Module):
    """R(t, h) = (1 - t) tanh(K h); t is a float or a tensor without axes, h is (B, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(0.1 * torch.randn(CHANNELS, CHANNELS, 3, 3))

    def forward(self, t: float | Tensor, h: Tensor) -> Tensor:
        return (1 - t) * torch.tanh(F.conv2d(h, self.kernel, padding=1))


class CellRate(nn.Module):
    """R(t, h) = tanh(theta_n h), theta piecewise constant on N cells, h (B, C); a float t is read as n = int(t * N)."""

    def __init__(self, nodes: int, jumping: bool) -> None:
        super().__init__()
        t_N = torch.arange(nodes, dtype=torch.float64)[:, None, None] / nodes
        first, second = torch.randn(2, CHANNELS, CHANNELS, dtype=torch.float64)
        smooth_N = first + second * torch.sin(2 * torch.pi * t_N)
        self.theta_N = nn.Parameter((torch.randn_like(smooth_N) if jumping else smooth_N) / CHANNELS**0.5)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        cell = min(int(t * len(self.theta_N)), len(self.theta_N) - 1)
        return torch.tanh(h @ self.theta_N[cell])


# --- one integration each, for any rate(t, h) ----------------------------------------------------------------------


def bare_loop(rate: nn.Module, h: Tensor, scheme: str, steps: int) -> Tensor:
    """What one would write; the update in place of `h + size * slope` is already the faster one."""
    size = 1 / steps
    for n in range(steps):
        t, k1 = n / steps, rate(n / steps, h)
        if scheme == "euler":
            h = torch.add(h, k1, alpha=size)
            continue
        k2 = rate(t + size / 2, torch.add(h, k1, alpha=size / 2))
        k3 = rate(t + size / 2, torch.add(h, k2, alpha=size / 2))
        k4 = rate(t + size, torch.add(h, k3, alpha=size))
        h = h + size / 6 * (k1 + 2 * (k2 + k3) + k4)
    return h


def ours(rate: nn.Module, h0: Tensor, scheme: str, steps: int) -> Tensor:
    return integrate(rate, h0, scheme=Scheme[scheme], steps=steps)


def full_grid(rate: nn.Module, h0: Tensor, scheme: str, steps: int) -> Tensor:
    return odeint(rate, h0, torch.linspace(0, 1, steps + 1, device=h0.device), method=scheme)[-1]


def two_points(rate: nn.Module, h0: Tensor, scheme: str, steps: int, solver: Callable[..., Tensor] = odeint) -> Tensor:
    ends = torch.tensor([0.0, 1.0], dtype=h0.dtype, device=h0.device)
    return solver(rate, h0, ends, method=scheme, options={"step_size": 1 / steps})[-1]


def torchdyn_grid(rate: nn.Module, h0: Tensor, scheme: str, steps: int) -> Tensor:
    from torchdyn.numerics import odeint as torchdyn_odeint  # type: ignore[import-untyped]

    return torchdyn_odeint(rate, h0, torch.linspace(0, 1, steps + 1, device=h0.device), solver=scheme)[1][-1]


def solvers() -> dict[str, Solver]:
    found: dict[str, Solver] = {
        "bare loop": bare_loop,
        "odenet": ours,
        "torchdiffeq, full grid": full_grid,
        "torchdiffeq, two points": two_points,
        "torchdiffeq adjoint": partial(two_points, solver=odeint_adjoint),
    }
    return found | ({"torchdyn": torchdyn_grid} if installed("torchdyn") else {})


def measure_times(steps: int, scheme: Scheme, rounds: int, device: str) -> dict[str, dict[str, Spread]]:
    """Of each solver: milliseconds of a forward and backward pass, and their ratio to the bare loop's."""
    rate, h0 = SmoothRate().to(device), torch.randn(32, CHANNELS, 16, 16, device=device, requires_grad=True)

    def train(solve: Solver) -> None:
        solve(rate, h0, scheme.value, steps).sum().backward()

    seconds = interleaved({name: partial(train, solve) for name, solve in solvers().items()}, rounds, device)
    return {
        name: {"milliseconds": Spread.of(1e3 * s for s in each), "ratio": ratio(seconds, name, "bare loop")}
        for name, each in seconds.items()
    }


# --- gradients on piecewise constant weights -----------------------------------------------------------------------


def by_stage(rate: CellRate, h0: Tensor, steps: int, gradient: Gradient) -> Tensor:
    """The weights of step n are those of cell n, as odenet's networks read theirs."""
    cells = rate.theta_N.unbind(0)
    opened = OpenRate(lambda stage, h: torch.tanh(h @ cells[stage.step]), lambda stage: [cells[stage.step]])
    return integrate_stages(opened, h0, Course(Scheme.euler, steps, gradient=gradient))


def written_out(rate: CellRate, h: Tensor, steps: int) -> Tensor:
    for theta in rate.theta_N:
        h = h + torch.tanh(h @ theta) / steps
    return h


def gradient_errors(steps: int, jumping: bool) -> dict[str, float]:
    """Of dL/dtheta with Euler, relative to the written-out loop, float64."""
    torch.manual_seed(0)
    rate, h0 = CellRate(steps, jumping), torch.randn(16, CHANNELS, dtype=torch.float64)
    candidates: dict[str, Callable[[], Tensor]] = {
        "odenet, direct": lambda: by_stage(rate, h0, steps, Gradient.direct),
        "odenet, reconstructed": lambda: by_stage(rate, h0, steps, Gradient.reconstructed),
        "torchdiffeq, two points": lambda: two_points(rate, h0, "euler", steps),
        "torchdiffeq adjoint": lambda: two_points(rate, h0, "euler", steps, odeint_adjoint),
    }

    def gradient(solve: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(solve().square().sum(), [rate.theta_N])

    true = gradient(lambda: written_out(rate, h0, steps))
    return {name: relative_error(gradient(solve), true) for name, solve in candidates.items()}


def misread() -> dict[str, int]:
    """For how many N = 1 ... 256 a float32 grid reads a wrong cell by int(t * N): the full grid, and step_size's."""

    def wrong(grid: Callable[[int], Tensor]) -> int:
        return sum(any(int(t * n) != cell for cell, t in enumerate(grid(n))) for n in range(1, 257))

    return {
        "full grid": wrong(lambda n: torch.linspace(0, 1, n + 1)[:-1]),
        "two points": wrong(lambda n: torch.arange(n, dtype=torch.float32) * (1 / n)),
    }


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    rounds = options.rounds or (2 if options.quick else 7)
    times: dict[str, dict[int, dict[str, dict[str, Spread]]]] = {}
    for scheme in SCHEMES[: 1 if options.quick else None]:
        times[scheme.value] = by_steps = {n: measure_times(n, scheme, rounds, options.device) for n in STEPS}
        rows = [[name, *(by_steps[n][name]["ratio"].text() for n in STEPS)] for name in by_steps[STEPS[0]]]
        title = f"{scheme.value}: time of forward and backward relative to the bare loop (min-max of n = {rounds})"
        print_table(f"{title}; goal for odenet {GOAL}", ["", *(f"N = {n}" for n in STEPS)], rows)
        a, b = (by_steps[n]["odenet"]["milliseconds"].median / n for n in STEPS[1:])
        print(f"milliseconds per step of odenet at N = {STEPS[2]} to those at {STEPS[1]}: {b / a:.2f} (1 is linear)")
    errors = {kind: {n: gradient_errors(n, kind == "jumping") for n in STEPS} for kind in ("smooth", "jumping")}
    for kind, by_n in errors.items():
        rows = [[name, *(f"{by_n[n][name]:.1e}" for n in STEPS)] for name in by_n[STEPS[0]]]
        title = f"relative error of the gradient, Euler, float64, piecewise constant weights, {kind} in depth"
        print_table(title, ["", *(f"N = {n}" for n in STEPS)], rows)
    wrong = misread()
    counts = ", ".join(f"{count} ({grid})" for grid, count in wrong.items())
    print(f"\nint(t * N) on torchdiffeq's float32 grids reads a wrong cell for {counts} of N = 1 ... 256")
    document = {"rounds": rounds, "times": times, "gradient_errors": errors, "misread": wrong}
    write("integrate", document, device=options.device, peers=["torchdiffeq"])


if __name__ == "__main__":
    main()
