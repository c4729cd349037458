"""The sweeps of a study: families x spaces x sizes x draws, each with its data, its seed and what the arm gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from odenet.data.config import DataConfig, Order, Portion
from odenet.data.sets import read_images
from odenet.data.subsets import DRAWS_PER_ROUND, load_data
from odenet.integrators.scheme import Course
from odenet.integrators.schemes import ADAPTIVE
from odenet.seeding import derive
from odenet.training.config import ExperimentConfig, depths_after
from search_spaces import SPACES
from sweep.config.evaluate_config import ConditionKind
from sweep.config.overrides import flat, override
from sweep.config.own import whole
from sweep.config.schema import AppConfig, SpaceConfig
from sweep.config.study_config import Arm, Dimensions, StudyConfig
from sweep.errors import InputError
from sweep.tuning.arms import Shape, epoch_gflops, parameters_of
from sweep.tuning.problem import build_problem


def sizes(config: AppConfig) -> list[int | None]:
    """List the images per class of a study; None: all."""
    return [*config.study.sizes] or [config.data.per_class]


def members(config: AppConfig) -> dict[str, AppConfig]:
    """Derive the sweeps of a study by name. Draws are outermost: after the first all families can be compared.

    A parameter fixed or narrowed holds in the families that have it.

    Raises:
        InputError: no family has it; or the data, which decides the budget of an arm, is not there.
    """
    several = len(config.study.sizes) > 1
    arms = {size: _arm(config, size) for size in sizes(config)}
    try:
        spaces = [
            replace(_space_of(family, config), shared=dimensions is Dimensions.shared)
            for dimensions in config.study.spaces
            for family in config.study.families
        ]
        return {
            f"{space.label}-{f'n{size}-' if several else ''}d{draw}": replace(
                config,
                space=space,
                data=replace(config.data, per_class=size, draw=draw),
                study=arms[size],
                # Each draw proposes other configurations and trains from other seeds; families share both on a draw.
                search=replace(config.search, seed=derive(config.search.seed, "draw", draw) % 2**31),
            )
            for draw in config.study.draws
            for size in sizes(config)
            for space in spaces
        }
    except ValueError as error:
        raise InputError(str(error)) from error


def _space_of(family: str, config: AppConfig) -> SpaceConfig:
    searched = {name: set(SPACES[name].parameters) for name in config.study.families}
    fix, narrowed = flat(config.space.fix), flat(config.space.range)
    for key in {**fix, **narrowed}:
        if not any(key in keys for keys in searched.values()):
            choices = ", ".join(sorted(set().union(*searched.values())))
            raise InputError(f"{key} is searched in no family of the study; searched are {choices}.")
    mine = searched[family]
    chosen = SpaceConfig(
        name=family,
        fix={key: value for key, value in fix.items() if key in mine},
        range={key: value for key, value in narrowed.items() if key in mine},
    )
    return whole(chosen)


def _arm(config: AppConfig, size: int | None) -> StudyConfig:
    """Return the section `study` of the sweeps of a size, in which the budget of the arm is a number."""
    study = config.study
    if study.arm is Arm.equal_epochs or study.gflops is not None or study.parameters is not None:
        return study
    try:
        data = replace(config.data, per_class=size, draw=study.draws[0])
        shape = Shape.of(load_data(data, config.runtime.data_dir))
        baseline = build_problem(replace(config, space=_space_of(study.baseline, config), study=StudyConfig()))
        median = override(baseline.experiment, baseline.space.corners()[0])
        if study.arm is Arm.equal_parameters:
            return replace(study, parameters=parameters_of(median, shape))
        lasting = override(median, {"training.epochs": study.median_epochs})
        return replace(study, gflops=sum(epoch_gflops(lasting, shape)), median_epochs=None)
    except ValueError as error:
        raise InputError(str(error)) from error


def check_draws(config: AppConfig) -> bool:
    """Tell whether draws of a size share images, which study.overlapping_draws=true allows.

    Raises:
        InputError: they do, and it is not allowed; there are too few images; or the data is not there.
    """
    overlapping = False
    if len(config.study.sizes) > 1 and config.data.order is Order.file:
        raise InputError(
            f"study.sizes={list(config.study.sizes)} with data.order=file: a draw of one size would hold other images "
            "than that draw of another; use data.order=shuffled, whose draws are nested, or one size."
        )
    for size in sizes(config):
        try:
            data = replace(config.data, per_class=size, portion=Portion.trainval)
            found = {draw: _drawn(replace(data, draw=draw), config.runtime.data_dir) for draw in config.study.draws}
        except ValueError as error:
            raise InputError(str(error)) from error
        for one, other in combinations(found, 2):
            shared = len(np.intersect1d(found[one], found[other]))
            if shared and not config.study.overlapping_draws:
                raise InputError(_overlap(config, data, (one, other), shared))
            overlapping = overlapping or bool(shared)
    return overlapping


def check_attacks(config: AppConfig, corners: Mapping[str, Sequence[ExperimentConfig]]) -> None:
    """Check what will be evaluated of the families, given their extreme experiments by the names of their sweeps.

    Raises:
        InputError: networks that choose their own steps will be attacked, without the flag that says what that is.
    """
    asked = config.evaluate
    if ConditionKind.attack not in asked.conditions or asked.attack.allow_adaptive:
        return
    for name, experiments in corners.items():
        adaptive = {course.scheme for one in experiments for course in _courses(one) if course.scheme in ADAPTIVE}
        if adaptive:
            schemes = ", ".join(sorted(scheme.value for scheme in adaptive))
            raise InputError(
                f"evaluate.conditions has attack, and networks of {name} may choose their own steps ({schemes}): their "
                "gradients are masked, so an attack that fails says nothing. Leave the family or the condition out, or "
                "set evaluate.attack.allow_adaptive=true to have the result labelled as an upper bound only."
            )


def _courses(experiment: ExperimentConfig) -> list[Course]:
    return [depth.course for depth in depths_after(experiment)]


def _drawn(data: DataConfig, directory: str) -> np.ndarray:
    return load_data(data, directory).train.indices_B


def _overlap(config: AppConfig, data: DataConfig, draws: tuple[int, int], shared: int) -> str:
    smallest = int(np.bincount(read_images(data, config.runtime.data_dir, test=False).labels_B).min())
    asked = "all images" if data.per_class is None else f"{data.per_class} per class"
    fit = "" if data.order is Order.file else (
        f"Draws 0 to {DRAWS_PER_ROUND - 1} share none up to {smallest // DRAWS_PER_ROUND} per class, as the smallest "
        f"class has {smallest} images. "
    )  # fmt: skip
    return (
        f"study.draws={list(config.study.draws)}: with {asked} draws {draws[0]} and {draws[1]} of {data.name} share "
        f"{shared} images, so that they are no independent draws. {fit}Ask for fewer images or draws, or say "
        "study.overlapping_draws=true: the report then says so."
    )
