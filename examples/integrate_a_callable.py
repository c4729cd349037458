"""Integrate an ordinary differential equation, and differentiate through it: any rate(t, h), no network needed.

Run it with `python examples/integrate_a_callable.py`; it takes seconds.
"""

import torch
from torch import Tensor, nn

from odenet import integrate


def decay(t: float, h: Tensor) -> Tensor:
    """dh/dt = -h, whose solution at t = 1 is h(0) / e."""
    return -h


class Rotation(nn.Module):
    """dh/dt = w J h turns the plane by the angle w; a rate with a parameter is a module that holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, t: float, h: Tensor) -> Tensor:
        return self.w * torch.stack([-h[1], h[0]])


def main() -> None:
    # Depth t runs from 0 to 1 in equal steps. Twice the steps: Euler's error is halved, that of RK4 divided by 16.
    h0 = torch.ones(1, dtype=torch.float64)
    exact = torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    for scheme in ("euler", "heun", "rk4"):
        errors = [float(integrate(decay, h0, scheme=scheme, steps=steps) - exact) for steps in (8, 16)]
        print(f"{scheme:6} error with 8 steps {errors[0]:+.1e}, with 16 steps {errors[1]:+.1e}")

    # Fit the angle. `checkpointed` keeps about the square root of the states that `direct` keeps, for one more
    # evaluation of each step; the gradient is the same.
    rate, start, target = Rotation(), torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    optimizer = torch.optim.SGD(rate.parameters(), lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        end = integrate(rate, start, scheme="rk4", steps=16, gradient="checkpointed")
        (end - target).square().sum().backward()
        optimizer.step()
    print(f"a quarter turn is an angle of {rate.w.item():.4f}, pi / 2 is {torch.pi / 2:.4f}")


if __name__ == "__main__":
    main()
