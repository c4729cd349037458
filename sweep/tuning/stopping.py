"""Decide when a sweep has spent enough, in all its sessions."""

from collections.abc import Sequence

from sweep.config.search_config import Budget
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow, ranked


def exhausted(budget: Budget, rows: Sequence[TrialRow], wall_clock: float) -> str:
    """Say why no further trial is to begin; empty where there is no reason."""
    gpu_hours = sum(row.gpu_seconds for row in rows) / 3600
    spent = (
        ("hours", budget.hours, wall_clock / 3600),
        ("gflops", budget.gflops, sum(row.gflops for row in rows)),
        ("gpu_hours", budget.gpu_hours, gpu_hours),
        ("money", budget.money, gpu_hours * (budget.gpu_hour_price or 0.0)),
    )
    for name, limit, value in spent:
        if limit is not None and value >= limit:
            return f"search.budget.{name}={limit:g} is spent ({value:,.4g})"
    best = next((row.objective or 0.0 for row in ranked(list(rows))), None)
    if budget.target is not None and best is not None and best >= budget.target:
        return f"search.budget.target={budget.target:g} is reached ({best:.4g})"
    if budget.plateau is not None and _without_gain(rows) >= budget.plateau:
        return f"search.budget.plateau={budget.plateau}: as many trials were done without a new best"
    return ""


def _without_gain(rows: Sequence[TrialRow]) -> int:
    """Count the trials that ended after the one with the best objective, in order of their numbers."""
    best, since = float("-inf"), 0
    for row in rows:
        if row.outcome is Outcome.done and row.feasible and (row.objective or 0.0) > best:
            best, since = row.objective or 0.0, 0
        elif row.outcome.ended:
            since += 1
    return since
