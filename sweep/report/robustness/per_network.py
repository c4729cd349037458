"""What final networks are numerically, beside whether they are ODEs: the rows of condition diagnostics."""

from collections.abc import Sequence

import numpy as np

from sweep.records.rows import DIAGNOSTICS
from sweep.report import statistics
from sweep.report.elements import NONE, Block, Table, plural
from sweep.report.load import Sweep
from sweep.report.results import Family, TaskResults

TITLES = {
    "rate_evaluations": "rate evaluations", "observed_order": "observed order", "gradient_error": "gradient error",
    "reconstruction_error": "reconstruction error", "smoothness": "S1", "max_real": "max Re λ",
    "amplification": "max |R(hλ)|", "lipschitz_median": "Lipschitz, median", "lipschitz_90": "90 %",
    "lipschitz_largest": "largest",
}  # fmt: skip
WHAT = (
    "Observed order of the network's own scheme; relative errors of the memory-free gradient and of the state walked "
    "back to, float32; S1, the change of weights along depth relative to their size; largest real part of the rate's "
    "eigenvalues at test images and the largest factor of a step; local Lipschitz constants from image to logits "
    "(largest singular value of the Jacobian at each of 32 test images; a lower bound, no certificate)."
)


def blocks(results: TaskResults) -> list[Block]:
    """Return means by family, and every network folded away; nothing where nothing was measured."""
    found = {family.name: own for family in results.families if (own := _networks(family))}
    if not found:
        return []
    columns = ["family", "networks", *TITLES.values()]
    rows = [
        [name, str(len(own)), *(_mean(own, metric) for metric in TITLES)]
        for name, networks in found.items()
        for own in [[values for _, _, values in networks]]
    ]
    caption = f"{WHAT} Means over networks ± standard error; – where none has the number."
    every = [
        [name, str(draw), str(seed), *(_written(values.get(metric)) for metric in TITLES)]
        for name, networks in found.items()
        for draw, seed, values in networks
    ]
    each = ["family", "draw", "seed", *TITLES.values()]
    folded = f"The same of each of {plural(len(every), 'network')}"
    return [Table(caption, columns, rows, ("family",)), Table(WHAT, each, every, ("family",), folded=folded)]


def _networks(family: Family) -> list[tuple[int, int, dict[str, float]]]:
    return [(sweep.draw, seed, values) for sweep in family.sweeps for seed, values in sorted(_by_seed(sweep).items())]


def _by_seed(sweep: Sweep) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for row in sweep.evaluations:
        if row.condition == DIAGNOSTICS:
            found.setdefault(row.seed, {})[row.metric] = row.value
    return found


def _mean(networks: Sequence[dict[str, float]], metric: str) -> str:
    values = [one[metric] for one in networks if metric in one]
    if not values:
        return NONE
    spread = statistics.spread(values)
    error = NONE if spread is None else _written(spread / len(values) ** 0.5)
    told = f"{_written(float(np.mean(values)))} ± {error}"
    return told if len(values) == len(networks) else f"{told} (n={len(values)})"


def _written(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}".replace("-", "−")
