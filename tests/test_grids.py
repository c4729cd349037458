"""A grid that is looped inside one test hides no failure."""

import pytest

from odenet.enums import Scheme
from tests.grids import for_each


def test_every_case_of_the_product_runs() -> None:
    seen = []

    @for_each("a", [1, 2])
    @for_each(("b", "c"), [(3, 4), (5, 6)])
    def claim(a: int, b: int, c: int, more: str) -> None:
        seen.append((a, b, c, more))

    claim(more="fixture")
    assert sorted(seen) == [(a, b, c, "fixture") for a in (1, 2) for b, c in ((3, 4), (5, 6))]


def test_a_failure_is_the_first_one_and_names_every_case_that_failed() -> None:
    @for_each("scheme", [Scheme.euler, Scheme.rk4, Scheme.heun])
    def claim(scheme: Scheme) -> None:
        assert scheme is Scheme.euler, f"not {scheme.value}"

    with pytest.raises(AssertionError, match="not rk4") as failure:
        claim()
    assert failure.value.__notes__ == ["Failed in 2 of 3 cases:\nscheme=rk4\nscheme=heun"]


def test_a_refusal_that_does_not_come_is_a_failure() -> None:
    @for_each("value", [0, 1])
    def claim(value: int) -> None:
        with pytest.raises(ValueError, match="0"):
            int("0" if value else "x0")

    with pytest.raises(pytest.fail.Exception) as failure:
        claim()
    assert failure.value.__notes__ == ["Failed in 1 of 2 cases:\nvalue=1"]


def test_a_loop_over_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="no cases"):
        for_each("a", [])
