"""One linear mixed model of all sizes, beside the tests on draws: families, sizes, and draws with their families.

Draws are nested: those of one number share images across sizes, so that a draw is one level whatever the size.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Run:
    """One final run; `size` names the task."""

    family: str
    size: str
    draw: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedModel:
    """The effects of families against the baseline, with standard errors, and the standard deviations of the rest."""

    effects: dict[str, tuple[float, float]]
    draws: float
    families_by_draw: float
    residual: float
    converged: bool


def fit(runs: Sequence[Run], baseline: str) -> MixedModel:
    """Fit accuracy ~ family + size, with draw and family x draw as variance components, by REML."""
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec  # type: ignore[import-untyped]

    families = sorted({run.family for run in runs} - {baseline})
    sizes = sorted({run.size for run in runs})[1:]
    fixed = [[1.0, *(run.family == name for name in families), *(run.size == name for name in sizes)] for run in runs]
    draws = _indicators([str(run.draw) for run in runs])
    crossed = _indicators([f"{run.family} {run.draw}" for run in runs])
    names = [[str(column) for column in range(found.shape[1])] for found in (draws, crossed)]
    parts = VCSpec(["draw", "family_draw"], [[names[0]], [names[1]]], [[draws], [crossed]])
    y = np.array([run.accuracy for run in runs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a component is 0 is a result, and convergence is told
        found = MixedLM(y, np.array(fixed, dtype=float), np.zeros(len(runs)), exog_vc=parts).fit(reml=True)
    effects = {
        name: (float(found.fe_params[place]), float(found.bse_fe[place])) for place, name in enumerate(families, 1)
    }
    sds = np.sqrt(np.maximum(found.vcomp, 0))
    return MixedModel(
        effects=effects, draws=float(sds[0]), families_by_draw=float(sds[1]), residual=float(np.sqrt(found.scale)),
        converged=bool(found.converged),
    )  # fmt: skip


def _indicators(levels: Sequence[str]) -> np.ndarray:
    """Return a column of zeros and ones for each level."""
    return np.array([[level == one for one in sorted(set(levels))] for level in levels], dtype=float)
