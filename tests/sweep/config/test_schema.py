"""The configuration: each shipped YAML composes, names meet types in one place, and what is saved is what was meant."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from odenet.data.config import DataSet
from odenet.enums import Device, Scheme
from odenet.training.config import ExperimentConfig, RuntimeConfig, to_plain
from search_spaces import SPACES
from sweep.config.compose import FOLLOWS, GOES_ON, check_possible, groups, known_keys, load
from sweep.config.overrides import override
from sweep.config.schema import AppConfig, SpaceConfig, save
from sweep.config.search_config import Budget
from sweep.errors import InputError
from sweep.study.members import members

NEEDED = {"data=folder": ["data.path=images"], "study=folder": ["data.path=images"]}  # besides a choice


@pytest.mark.parametrize("choice", [f"{group}={name}" for group, names in groups().items() for name in names])
def test_every_shipped_yaml_composes_into_a_configuration_whose_space_is_possible(choice):
    config = load([choice, *NEEDED.get(choice, [])])
    for corner in config.space.build().corners():
        override(config.experiment, corner)


def test_data_and_spaces_can_each_be_chosen_by_their_own_names():
    assert groups()["data"] == sorted(member.value for member in DataSet)
    assert groups()["space"] == sorted(SPACES)
    chosen = [[f"data={name}", *NEEDED.get(f"data={name}", [])] for name in groups()["data"]]
    assert [load(words).data.dataset.value for words in chosen] == groups()["data"]
    assert [load([f"space={name}"]).space.name for name in groups()["space"]] == groups()["space"]


def test_the_default_is_the_main_job_on_data_that_needs_no_file():
    config = load([])
    assert (config.data.dataset, config.data.per_class, config.search.trials) == (DataSet.digits, 20, 12)
    assert config.tracking.uri is None
    assert list(members(config)) == [f"{family}-d{draw}" for draw in range(3) for family in ("resnet", "continuous")]


def test_members_of_a_study_differ_in_family_draw_and_the_seed_of_the_draw_only():
    config = load(["study.draws=[1,4]", "space.range.optim.lr=[0.01,0.1]", "space.fix.model.scheme=rk4"])
    seeds = {}
    for name, member in members(config).items():
        assert name == f"{member.space.name}-d{member.data.draw}"
        assert seeds.setdefault(member.data.draw, member.search.seed) == member.search.seed
        search = replace(member.search, seed=config.search.seed)
        assert replace(member, space=config.space, data=config.data, search=search) == config
        assert replace(member.data, draw=config.data.draw) == config.data
        space = member.space.build()
        assert space.parameters["optim.lr"].extremes() == (0.01, 0.1)
        assert space.fixed.get("model.scheme") == {"resnet": None, "continuous": "rk4"}[member.space.name]
    assert len(set(seeds.values())) == 2


@pytest.mark.parametrize("family", SPACES)
def test_every_corner_of_every_space_becomes_an_experiment_with_exactly_these_values(family):
    base = load([]).experiment
    for corner in SPACES[family].corners():
        made = to_plain(override(base, corner))
        for key, value in corner.items():
            part, name = key.split(".")
            assert made[part][name] == value
            made[part][name] = to_plain(base)[part][name]
        assert made == to_plain(base)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model.widht": 4}, "model.widht is no key of an experiment; did you mean model.width"),
        ({"model": 4}, "model is no key of an experiment"),
        ({"model.width.x": 4}, "model.width.x is no key of an experiment"),
        ({"search.trials": 4}, "search.trials is no key of an experiment"),
        ({"model.width": "4"}, "model.width='4': must be of type int"),
        ({"model.scheme": "rk5"}, "model.scheme='rk5': must be one of euler"),
        ({"model.network": "resnet", "model.scheme": "rk4"}, "only euler is possible"),
    ],
)
def test_a_name_or_value_that_no_experiment_has_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        override(ExperimentConfig(), params)


def test_overriding_changes_nothing_in_the_experiment_it_starts_from():
    base = ExperimentConfig()
    assert override(base, {"model.scheme": "rk4"}).model.scheme is Scheme.rk4
    assert base == ExperimentConfig()


def test_the_experiment_leaves_and_returns_unchanged():
    config = load(["data=cifar10", "model.width=4"])
    other = override(config.experiment, {"optim.lr": 0.5})
    assert config.with_experiment(other).experiment == other
    assert config.with_experiment(other).with_experiment(config.experiment) == config


def test_a_trial_is_told_of_the_runtime_what_odenet_knows_and_nothing_more():
    runtime = load(["runtime.device=cpu", "runtime.data_dir=d", "runtime.runs_dir=r"]).runtime
    assert runtime.for_training() == RuntimeConfig(device=Device.cpu, data_dir="d")
    assert type(runtime.for_training()) is RuntimeConfig


def test_parameters_are_fixed_and_narrowed_from_the_command_line_and_the_last_word_counts():
    space = load(
        ["space.fix.model.scheme=heun", "space.fix.model.scheme=rk4", "space.range.optim.lr=[0.01,0.1]"]
    ).space.build()
    assert space.fixed["model.scheme"] == "rk4"
    assert space.parameters["optim.lr"].extremes() == (0.01, 0.1)
    assert set(SPACES["continuous"].parameters) - set(space.parameters) == {"model.scheme"}


def test_what_is_saved_is_what_was_meant(tmp_path):
    saved = tmp_path / "config.yaml"
    for words in ([], ["data=stl10", "space=stateful", "space.range.optim.lr=[0.01,0.1]", "model.depth_time=2"]):
        config = load(words)
        saved.write_text(save(config))
        assert load([], saved=saved) == config
        assert load(["final.top=5", "runtime.device=cpu"], saved=saved) == replace(
            config, final=replace(config.final, top=5), runtime=replace(config.runtime, device=Device.cpu)
        )


@pytest.mark.parametrize(
    ("possible", "parts"), [(GOES_ON, set()), (FOLLOWS, {"final", "sensitivity", "evaluate", "export"})]
)
def test_of_work_that_was_begun_only_how_it_goes_on_can_be_set_and_of_what_is_done_what_follows(possible, parts):
    settable = {key for key in known_keys() if "." in key and not _refused(f"{key}=1", possible)}
    assert {key.split(".")[0] for key in settable} == {"runtime", "cluster", "tracking", "search", "data", *parts}
    assert {key for key in settable if key.startswith("data.")} == {"data.path"}
    of_the_search = {key.removeprefix("search.") for key in settable if key.startswith("search.")}
    assert {key for key in of_the_search if not key.startswith("budget")} == {
        "concurrency", "retries", "checkpoint_every", "timeout_minutes", "accept_changes", "more",
        *({"seed"} if parts else ()),
    }  # fmt: skip
    assert {f"budget.{field.name}" for field in fields(Budget)} <= of_the_search
    learned = ["data=mnist", "cluster=address", "+model.width=4", "space.fix.model.scheme=rk4", "search.sampler=gp"]
    assert all(_refused(word, possible) for word in learned)


def _refused(word: str, possible: tuple[str, ...]) -> bool:
    try:
        check_possible([word], Path("config.yaml"), possible)
    except InputError as error:
        assert str(error).startswith(f"{word}: what is learned is fixed by config.yaml; only runtime.*, cluster.*")
        return True
    return False


def test_every_value_of_the_schema_has_a_key_and_every_choice_is_closed():
    plain = OmegaConf.to_container(OmegaConf.structured(AppConfig))
    for key in known_keys():
        node = plain
        for part in key.split("."):
            assert part in node
            node = node[part]
    with pytest.raises(ValueError, match=r"space\.name=vgg is no search space; possible are resnet, continuous"):
        SpaceConfig(name="vgg").build()


@pytest.mark.parametrize(("words", "refused"), [([], True), (["cluster=address"], False)])
def test_a_gpu_must_be_here_only_where_trials_run_here(monkeypatch, words, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = load(["runtime.device=cuda", *words])
    if refused:
        with pytest.raises(ValueError, match="torch sees no CUDA device here; auto and cpu are possible"):
            config.check_device()
    else:
        config.check_device()
