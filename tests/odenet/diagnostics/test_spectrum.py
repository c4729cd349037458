"""Eigenvalues of known Jacobians, and what a step of each scheme makes of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from odenet import Scheme, integrate
from odenet.diagnostics.spectrum import (
    DENSE,
    Jacobian,
    amplification,
    leading_eigenvalues,
    log_norm,
    spectrum,
    stability_function,
)
from odenet.integrators.scheme import ExplicitRungeKutta
from odenet.integrators.schemes import SCHEMES
from odenet.networks.orders import HAMILTONIAN_BARE
from tests.grids import for_each
from tests.odenet.diagnostics.probes import images, row, tiny

RUNGE_KUTTA = [scheme for scheme, method in SCHEMES.items() if isinstance(method, ExplicitRungeKutta)]


def matrix(eigenvalues: np.ndarray, size: int, scale: float = 0.3) -> np.ndarray:
    """A full matrix with these eigenvalues (complex ones beside their conjugates), not normal; the rest are small."""
    blocks = np.diag(np.linspace(-0.5, 0.1, size))
    place = 0
    for value in eigenvalues:
        if value.imag:
            blocks[place : place + 2, place : place + 2] = [[value.real, value.imag], [-value.imag, value.real]]
        else:
            blocks[place, place] = value.real
        place += 2 if value.imag else 1
    blocks = blocks + scale * np.triu(np.random.default_rng(0).standard_normal((size, size)), 2) / np.sqrt(size)
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((size, size)))
    return turn @ blocks @ turn.T


@for_each("size", [6, DENSE, DENSE + 1, 150])
def test_a_linear_rate_has_the_eigenvalues_of_its_matrix(size: int) -> None:
    a = torch.tensor(matrix(np.array([-4.0, 1.0 + 2.0j, 0.5]), size, scale=0.0))
    found = leading_eigenvalues(Jacobian(lambda x: x @ a.T, torch.zeros(1, size, dtype=torch.float64)), count=4)
    assert np.abs(found).max() == pytest.approx(4, rel=1e-3)
    assert found.real.max() == pytest.approx(1, rel=1e-3)
    assert np.abs(found - (1 + 2j)).min() < 1e-3
    assert np.abs(found - (1 - 2j)).min() < 1e-3


def test_the_most_unstable_eigenvalue_is_found_where_it_is_not_among_the_largest() -> None:
    a = torch.tensor(matrix(np.array([-4.0, -3.0, -2.5, -2.0, 0.7]), 100, scale=0.0))
    found = leading_eigenvalues(Jacobian(lambda x: x @ a.T, torch.zeros(1, 100, dtype=torch.float64)), count=2)
    assert found.real.max() == pytest.approx(0.7, rel=1e-3)
    assert found.real.min() == pytest.approx(-4, rel=1e-3)


@for_each("size", [2, 100])
def test_the_logarithmic_norm_sees_growth_that_no_eigenvalue_shows(size: int) -> None:
    a = -torch.eye(size, dtype=torch.float64)
    a[0, 1] = 10.0
    x = torch.zeros(1, size, dtype=torch.float64)
    assert leading_eigenvalues(Jacobian(lambda h: h @ a.T, x), count=3).real.max() == pytest.approx(-1, abs=1e-3)
    assert log_norm(Jacobian(lambda h: h @ a.T, x)) == pytest.approx(4, rel=1e-4)


@for_each("whole", [0, 1024])
def test_products_are_those_of_the_jacobian_made_once_or_walked_each_time(
    whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("odenet.diagnostics.spectrum.WHOLE", whole)

    def field(x: Tensor) -> Tensor:
        return torch.relu(torch.sin(3 * x).cumsum(1)) * x

    x = torch.linspace(-1, 1, 12, dtype=torch.float64)[None]
    exact = torch.autograd.functional.jacobian(field, x).view(12, 12).numpy()
    jacobian, v = Jacobian(field, x), np.random.default_rng(0).standard_normal(12)
    assert jacobian.times(v) == pytest.approx(exact @ v)
    assert jacobian.symmetric_times(v) == pytest.approx((exact + exact.T) @ v / 2)


def test_stability_functions_are_the_polynomials_of_the_schemes() -> None:
    z = np.array([-1.0, 0.3 + 0.4j, 2j, -3.0])
    exact = {
        Scheme.euler: 1 + z,
        Scheme.midpoint: 1 + z + z**2 / 2,
        Scheme.heun: 1 + z + z**2 / 2,
        Scheme.ralston: 1 + z + z**2 / 2,
        Scheme.rk4: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24,
        Scheme.rk4_38: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24,
        Scheme.polynet: 1 + z + z**2,
    }
    assert set(exact) == set(RUNGE_KUTTA)
    for scheme, values in exact.items():
        method = SCHEMES[scheme]
        assert isinstance(method, ExplicitRungeKutta)
        assert stability_function(method, z) == pytest.approx(values), scheme


@for_each(
    ("scheme", "limit"),
    [(Scheme.rk4, np.sqrt(8)), (Scheme.rk4_38, np.sqrt(8)), (Scheme.verlet, 2.0), (Scheme.two_step_midpoint, 1.0)],
)
def test_a_scheme_is_stable_on_the_imaginary_axis_up_to_its_limit(scheme: Scheme, limit: float) -> None:
    inside, outside = amplification(scheme, 1.0, np.array([0.999j * limit, 1.001j * limit]))
    assert inside <= 1 + 1e-9 < outside
    assert amplification(scheme, 0.5, np.array([2 * 0.999j * limit])) <= 1 + 1e-9, "it is h lambda that counts"


def test_euler_is_unstable_on_the_whole_imaginary_axis_and_leapfrog_stable_up_to_four_below_zero() -> None:
    assert (amplification(Scheme.euler, 1.0, np.array([1e-3j, 1j])) > 1).all()
    inside, outside, growing = amplification(Scheme.leapfrog, 1.0, np.array([-3.99, -4.01, 0.01]))
    assert inside <= 1 + 1e-9 < min(outside, growing)
    assert amplification(Scheme.leapfrog, 0.5, np.array([-15.9])) <= 1 + 1e-9, "of h^2 lambda"


@for_each("scheme", [Scheme.euler, Scheme.rk4, Scheme.verlet, Scheme.two_step_midpoint])
@for_each("frequency", [0.7, 2.2, 3.5])
def test_an_amplification_is_that_of_an_integration(scheme: Scheme, frequency: float) -> None:
    """Of an oscillator over 60 steps of length 1, whose mode may mix two roots: bounded, or of the larger one."""
    steps, omega = 60, frequency
    rate = (lambda t, z: steps * omega * z, lambda t, y: -steps * omega * y)
    end = integrate(rate, torch.tensor([1.0, 0.5], dtype=torch.float64), scheme=scheme, steps=steps)
    (factor,) = amplification(scheme, 1.0, np.array([1j * omega]))
    if factor <= 1 + 1e-9:
        assert end.norm() < 20
    else:
        assert float(end.norm()) ** (1 / steps) == pytest.approx(float(factor), rel=0.05)


@for_each("scheme", [Scheme.lm, Scheme.dopri5])
def test_a_scheme_without_fixed_coefficients_has_no_amplification(scheme: Scheme) -> None:
    with pytest.raises(ValueError, match=f"scheme={scheme.value}: "):
        amplification(scheme, 1.0, np.array([1j]))


def test_a_hamiltonian_network_without_norms_has_an_imaginary_spectrum() -> None:
    with row("hamiltonian", rate=HAMILTONIAN_BARE, opening=None, last_extra=0) as name:
        model = tiny(name, side=4)
        found = spectrum(model, images(side=4), count=2)
    assert found.max_real is not None
    assert found.max_imaginary is not None
    assert abs(found.max_real) < 1e-5 < found.max_imaginary
    assert found.sizes == (1.0, 1.0, 1.0)
    assert all(len(each) == 3 * 2 * size for each, size in zip(found.eigenvalues, (64, 32, 16), strict=True))
    assert found.amplification is not None
    assert (found.amplification > 1 + 1e-6) == (found.max_imaginary > 2), "Verlet, h = 1"


@for_each(("name", "reason"), [("lm_resnet", "learned"), ("neural_ode", "adaptive")])
def test_a_network_of_such_a_scheme_has_eigenvalues_and_a_reason(name: str, reason: str) -> None:
    found = spectrum(tiny(name, nodes=1), images(), count=1)
    assert found.max_real is not None
    assert found.amplification is None
    assert reason in found.reason


def test_the_spectrum_leaves_the_network_as_it_was_and_does_not_depend_on_chance() -> None:
    model = tiny("continuous").train()
    one, other = (spectrum(model, images(), count=1) for _ in range(2))
    assert one.amplification == other.amplification
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^3 images are too few: at least 16 are needed\.$"):
        spectrum(tiny("continuous"), images(3))
