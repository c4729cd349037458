"""What an MLflow run says of itself: who began it on what code, what was searched and fixed, what was found."""

import getpass
import os

from odenet.training.config import OBJECTIVE_EPOCHS, ExperimentConfig, to_plain
from search_spaces import Choice, Float, Int, Space
from search_spaces.parameters import Parameter
from sweep.config.overrides import flat
from sweep.config.schema import AppConfig
from sweep.records.best import git_commit
from sweep.records.summary import SweepSummary

NOTE = "mlflow.note.content"  # MLflow's tag for a description in Markdown
ALWAYS_SHOWN = ("data.dataset", "data.per_class", "data.draw", "training.epochs")


def source_tags(stage: str, name: str) -> dict[str, str]:
    """Return MLflow's own tags for who ran which command on what code."""
    commit, _, dirty = git_commit().partition("-")
    tags = {"mlflow.source.name": f"sweep {stage} {name}", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry of its own
        tags["mlflow.user"] = str(os.getuid())
    if commit:
        tags |= {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": str(bool(dirty)).lower()}
    return tags


def searched_params(config: AppConfig, space: Space) -> dict[str, str]:
    """Say what was searched, from where to where, and what was fixed: by the space, by the user, or, of what everybody
    asks, by default. A default that was not touched stands in config.yaml alone."""
    searched, untouched = space.parameters, flat(to_plain(ExperimentConfig()))
    values = flat(to_plain(config.experiment)) | space.fixed
    shown = {key for key, value in values.items() if key in (*space.fixed, *ALWAYS_SHOWN) or value != untouched[key]}
    search = {"search.sampler": config.search.sampler.value, "search.scheduler": config.search.scheduler.value}
    return {
        **{f"searched.{key}": domain(parameter) for key, parameter in searched.items()},
        **{f"fixed.{key}": str(value) for key, value in values.items() if key in shown - searched.keys()},
        **{**search, "search.seed": str(config.search.seed)},
    }


def domain(parameter: Parameter) -> str:
    """Write a searched parameter's values shortly.

    >>> domain(Float(0.001, 0.3, log=True)), domain(Choice(("euler", "rk4")))
    ('0.001 to 0.3, logarithmic', 'euler, rk4')
    """
    if isinstance(parameter, Choice):
        return ", ".join(map(str, parameter.options))
    assert isinstance(parameter, Float | Int)
    return f"{parameter.low} to {parameter.high}{', logarithmic' if parameter.log else ''}"


def description(config: AppConfig, summary: SweepSummary) -> str:
    """Say in Markdown what a sweep is, and what it has found so far."""
    search, data = config.search, config.data
    size = "all images" if data.per_class is None else f"{data.per_class} images per class"
    text = (
        f"Space `{config.space.label}` on {data.dataset.value}, {size}, draw {data.draw}: {search.trials} trials of "
        f"{config.study.lasting(config.training.epochs)}, sampler {search.sampler.value}, scheduler "
        f"{search.scheduler.value}. The objective is the mean validation accuracy of the last "
        f"{OBJECTIVE_EPOCHS} epochs."
    )
    return "\n\n".join(filter(None, [summary.table(), text]))  # MLflow shows the first lines, and more when asked
