"""`sweep plan`: check a search, or a whole study, and what it costs, before anything is spent; write nothing, start no
Ray."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table

from odenet.data.subsets import Splits
from odenet.training.config import ExperimentConfig
from odenet.training.gpu_load import MIB
from sweep.config.schema import AUTO, AppConfig
from sweep.console import say
from sweep.errors import InputError
from sweep.stages.search import PreparedSearch, prepare_new_search, prepare_search
from sweep.storage.mirroring import check_usable
from sweep.study.frozen import selection
from sweep.study.members import check_attacks, check_draws, members
from sweep.tuning.arms import Shape, epoch_gflops
from sweep.tuning.ask_and_tell import random_parameters
from sweep.tuning.estimates import ITERATIONS, Expected, TrialCost, estimate, expected, threads
from sweep.tuning.local_grid import most_trainings
from sweep.tuning.problem import DECIDED, OF_A_STUDY, check_decided

NAME_WIDTH = 24  # of a family beside its costs on a screen of 80 columns; longer names go on in a second line
FEW = 16  # configurations of a family whose operations are counted


def plan(config: AppConfig, console: Console) -> None:
    """Print trials x rungs x cost of the cheapest, a middle and the dearest configuration of the space, and each step
    before it is taken.

    Raises:
        InputError: the configuration, the data or the place for results is not usable.
    """
    prepared = prepare_new_search(config)
    splits, corners = prepared.splits, prepared.corners
    check_dry_run(config)
    check_writable(Path(config.runtime.runs_dir))
    check_usable(config.runtime.storage)
    images = f"{len(splits.train)} train, {len(splits.val) if splits.val else 0} val"
    console.print(f"Data: {config.data.name}, draw {config.data.draw}, {images} images, hash {splits.hash}")
    console.print(f"Space: {config.space.label}, {len(corners)} corners, all possible")
    say(f"Search: {_described(config)}", console)
    course = expected(config.search, config.training.epochs)
    say("Trials expected: " + "; ".join(f"{trials:.3g} to epoch {epoch}" for epoch, trials in course), console)
    console.print(f"Dry run: counts all corners' operations, times {ITERATIONS} iterations of three corners")
    with threads(config.runtime.resources.cpus):
        estimates = _estimates(corners, config, splits)
    console.print(_table(estimates, course, config))
    around = (
        f"`sweep sensitivity NAME`, where it is asked for, is {most_trainings(config.sensitivity)} trainings more, "
        "each as a trial above."
    )
    for line in [around, *_budget(estimates, course, config), *_on_gpus(estimates, config)]:
        say(line, console)


def _estimates(corners: list[ExperimentConfig], config: AppConfig, splits: Splits) -> dict[str, TrialCost]:
    costs = _counted(corners, splits)
    totals = [sum(cost) for cost in costs]
    chosen = {"cheapest": totals.index(min(totals)), "middle": 0, "dearest": totals.index(max(totals))}
    return {name: estimate(corners[index], costs[index], config, splits) for name, index in chosen.items()}


def _counted(corners: list[ExperimentConfig], splits: Splits) -> list[list[float]]:
    """Count the GFLOP of each epoch of each corner; corners that differ in the optimizer, say, cost the same."""
    known: dict[str, list[float]] = {}
    for corner in corners:
        key = _network(corner)
        known[key] = known[key] if key in known else epoch_gflops(corner, Shape.of(splits))
    return [known[_network(corner)] for corner in corners]


def _network(experiment: ExperimentConfig) -> str:
    """Write down all that decides which operations a network takes in which epoch."""
    return repr((experiment.model, experiment.refinement, experiment.training.epochs))


def _described(config: AppConfig) -> str:
    search = config.search
    share = f", {search.random_share:.0%} of them at random and unstopped" if search.random_share else ""
    return (
        f"{search.trials} trials x {config.training.epochs} epochs{share}, sampler {search.sampler.value}, scheduler "
        f"{search.scheduler.value}"
    )


def check_dry_run(config: AppConfig) -> None:
    """Raise InputError where runtime.device is not on this machine, wherever trials would run."""
    try:
        config.runtime.torch_device()
    except ValueError as error:
        raise InputError(f"{error} The dry run is on this machine.") from error


def check_writable(directory: Path) -> None:
    """Raise InputError where results could not be written: tried on the nearest directory that exists."""
    existing = next(parent for parent in [directory.resolve(), *directory.resolve().parents] if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"runtime.runs_dir={directory}: {existing} cannot be written to; choose another directory.")


@dataclass(frozen=True, slots=True)
class FamilyCost:
    """The cost of a family on one draw of one size, for the first configurations that a random search tries."""

    epochs: list[int]  # of each configuration
    gflops: list[float]  # of each one's training
    seconds_per_gflop: float
    trials: float  # whole trainings that the search is worth, stopped ones in part
    retrained: float  # whole trainings that confirming and final training are worth

    @property
    def seconds(self) -> float:
        """Sum up search and final training, one after another."""
        return fmean(self.gflops) * (self.trials + self.retrained) * self.seconds_per_gflop


def plan_study(config: AppConfig, console: Console) -> None:
    """Print what each family of a study costs on each size, and the whole study: trainings, epochs, hours and money.

    Raises:
        InputError: as `plan`, draws share images, or what is to be evaluated cannot be.
    """
    from sweep.stages.evaluate import check_measurable  # loads Ray

    check_decided(config, {**DECIDED, **OF_A_STUDY})
    check_dry_run(config)
    check_writable(Path(config.runtime.runs_dir))
    check_usable(config.runtime.storage)
    check_measurable(config)
    parts = {part: one for part, one in members(config).items() if one.data.draw == config.study.draws[0]}
    prepared = {part: prepare_search(member) for part, member in parts.items()}
    check_attacks(config, {part: one.corners for part, one in prepared.items()})
    overlap = ", which share images" if check_draws(config) else ", disjoint" if len(config.study.draws) > 1 else ""
    console.print(
        f"Data: {config.data.name}, {len(config.study.draws)} draw{'s' * (len(config.study.draws) > 1)}{overlap}",
        highlight=False,
    )
    console.print(f"Arm: {config.study.arm.value}; search: {selection(config)}", highlight=False)
    console.print(f"Dry run: {ITERATIONS} iterations of each family on each size", highlight=False)
    with threads(config.runtime.resources.cpus):
        costs = {part.rpartition("-d")[0]: _family_cost(parts[part], one) for part, one in prepared.items()}
    console.print(_family_table(costs))
    for line in _whole(costs, config):
        say(line, console)


def _family_cost(member: AppConfig, prepared: PreparedSearch) -> FamilyCost:
    search, problem, shape = member.search, prepared.problem, Shape.of(prepared.splits)
    tried = [problem.experiment_of(random_parameters(problem.space, search, n)) for n in range(min(search.trials, FEW))]
    gflops = [epoch_gflops(one, shape) for one in tried]
    middle = problem.experiment_of(problem.space.corners()[0])
    measured = estimate(middle, epoch_gflops(middle, shape), member, prepared.splits)
    course, epochs = expected(search, member.training.epochs), member.training.epochs
    ends = [0, *(epoch for epoch, _ in course)]
    trained = sum(trials * (epoch - begin) for begin, (epoch, trials) in zip(ends[:-1], course, strict=True))
    confirmed = member.final.top * member.final.confirm_seeds * (member.final.top > 1)
    final = member.final.seeds / (1 - member.data.val_fraction)  # on train and val, at as many epochs
    return FamilyCost(
        [one.training.epochs for one in tried],
        [sum(one) for one in gflops],
        measured.seconds_per_gflop,
        trained / epochs,
        confirmed + final,
    )


def _family_table(costs: Mapping[str, FamilyCost]) -> Table:
    table = Table(title="A draw of each family: the search, and final training (on train and val)")
    table.add_column("", min_width=min(NAME_WIDTH, max(map(len, costs))), overflow="fold")
    for column in ("epochs", "GFLOP a training", "seconds a training", "search hours", "final hours"):
        table.add_column(column, justify="right")
    for name, one in costs.items():
        mean = fmean(one.gflops)
        low, high = min(one.epochs), max(one.epochs)
        hours = [mean * count * one.seconds_per_gflop / 3600 for count in (one.trials, one.retrained)]
        table.add_row(
            name,
            f"{low}" if low == high else f"{low} to {high}",
            f"{mean:,.1f}",
            f"{mean * one.seconds_per_gflop:.1f}",
            *(f"{one:,.3g}" for one in hours),
        )
    return table


def _whole(costs: Mapping[str, FamilyCost], config: AppConfig) -> Iterator[str]:
    """Say what the whole study takes, and for how much money where prices are given."""
    draws, final, resources = len(config.study.draws), config.final, config.runtime.resources
    retrained = final.top * final.confirm_seeds * (final.top > 1) + final.seeds
    sweeps = draws * len(costs)
    trained = [draws * (config.search.trials + retrained) * fmean(one.epochs) for one in costs.values()]
    hours = draws * sum(one.seconds for one in costs.values()) / 3600
    at_once = _at_once(config)
    yield (
        f"The study: {sweeps} sweeps, {sweeps * config.search.trials:,} search trials and {sweeps * retrained:,} "
        f"confirming and final trainings, {sum(trained):,.0f} epochs in all; {hours:.3g} hours one after another, "
        f"{hours / at_once:.3g} at {at_once} at a time on this machine. Evaluation is not counted."
    )
    around, one = (
        most_trainings(config.sensitivity),
        [fmean(cost.gflops) * cost.seconds_per_gflop for cost in costs.values()],
    )
    yield (
        f"`sweep sensitivity NAME/SWEEP`, where it is asked for of one of these sweeps, is {around} trainings more: "
        f"{around * min(one) / 3600:.3g} to {around * max(one) / 3600:.3g} hours one after another."
    )
    gpus = 0.0 if resources.gpus in (None, AUTO) else float(resources.gpus or 0.0)
    gpu_price, cpu_price = config.search.budget.gpu_hour_price, config.study.cpu_hour_price
    if gpus and gpu_price is not None:
        yield f"Money: {hours * gpus * gpu_price:,.2f} at {gpu_price:g} a GPU hour (search.budget.gpu_hour_price)."
    if cpu_price is not None:
        yield f"Money: {hours * resources.cpus * cpu_price:,.2f} at {cpu_price:g} a CPU hour (study.cpu_hour_price)."


def _at_once(config: AppConfig) -> int:
    """Tell how many trials run at once on this machine."""
    if config.search.concurrency is not None:
        return config.search.concurrency
    return max(1, (config.cluster.cpus or os.cpu_count() or 1) // config.runtime.resources.cpus)


def _table(estimates: dict[str, TrialCost], course: Expected, config: AppConfig) -> Table:
    at_once = _at_once(config)
    retrained = config.final.top * config.final.confirm_seeds * (config.final.top > 1) + config.final.seeds
    table = Table(title=f"A trial, and the sweep if all were like it, {at_once} at a time on this machine")
    table.add_column("")
    for name in estimates:
        table.add_column(name, justify="right")
    table.add_row("parameters", *(f"{one.parameters:,}" for one in estimates.values()))
    table.add_row("memory, MiB", *(f"{one.memory_mib:,.0f}" for one in estimates.values()))
    table.add_row("trial GFLOP", *(f"{sum(one.gflops):,.1f}" for one in estimates.values()))
    table.add_row("trial seconds", *(f"{sum(one.gflops) * one.seconds_per_gflop:.1f}" for one in estimates.values()))
    for stage, spent in (
        ("search", [one.spent(course) for one in estimates.values()]),
        ("final", [retrained * sum(one.gflops) for one in estimates.values()]),
    ):
        seconds = [one.seconds_per_gflop * gflops for one, gflops in zip(estimates.values(), spent, strict=True)]
        table.add_row(f"{stage} GFLOP", *(f"{gflops:,.0f}" for gflops in spent))
        table.add_row(f"{stage} time", *(str(timedelta(seconds=round(one / at_once))) for one in seconds))
    return table


def _budget(estimates: dict[str, TrialCost], course: Expected, config: AppConfig) -> Iterator[str]:
    """Say when a budget would end the search before its trials do."""
    limit = config.search.budget.gflops
    for name, one in estimates.items():
        if limit is not None and one.spent(course) > limit:
            trials = config.search.trials * limit / one.spent(course)
            yield f"search.budget.gflops={limit:g} is spent after about {trials:.0f} trials if all are like the {name}."


def _on_gpus(estimates: dict[str, TrialCost], config: AppConfig) -> Iterator[str]:
    """Say whether iterations are CUDA graphs, and how many trials to put on a GPU; of the CPU only what was asked."""
    for name, one in estimates.items():
        if one.gpu is None:
            continue
        graph = f"no CUDA graph, because {one.graph_obstacle}" if one.graph_obstacle else "a CUDA graph"
        total_mib = torch.cuda.get_device_properties(0).total_memory / MIB
        most = max(1, (os.cpu_count() or 1) // config.runtime.resources.cpus)
        count = one.gpu.trials_on(total_mib, most)
        yield (
            f"The {name}: an iteration is {graph} and takes {one.gpu.step_ms:.1f} ms, of which the GPU works "
            f"{one.gpu.busy:.0%}, and {one.gpu.memory_mib:,.0f} MiB: {count} to a GPU would be runtime.resources.gpus="
            f"{1 / count:.4g}."
        )
    if config.runtime.resources.gpus == AUTO and not any(one.gpu for one in estimates.values()):
        yield (
            "runtime.resources.gpus=auto: there is no GPU here to measure on. A sweep measures it on a GPU of its "
            "cluster before trials begin; where there is none, trials get none."
        )
