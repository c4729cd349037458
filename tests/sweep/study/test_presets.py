"""The presets of studies: what each is, and that a command line and a file of the user's own come after them."""

from pathlib import Path

import pytest

from odenet.data.config import DataSet
from search_spaces import SPACES
from sweep.cli.parse import parse
from sweep.cli.run_studies import _check_sizes
from sweep.config.compose import groups, is_study, load
from sweep.config.schema import AppConfig
from sweep.config.search_config import SamplerKind, SchedulerKind
from sweep.config.study_config import Arm
from sweep.errors import InputError
from tests.sweep.sweep_command import assert_refused, in_empty_directory

NEEDS = {"folder": ["data.path=images"]}
DATA = {
    "default": DataSet.digits, "quick": DataSet.digits, "cifar10_lowdata": DataSet.cifar10, "stl10": DataSet.stl10,
    "cifar10_full": DataSet.cifar10, "folder": DataSet.folder,
}  # fmt: skip


def typed(*words: str) -> AppConfig:
    """The configuration of `sweep study x` with these words."""
    return load(parse(["study", "x", *words]).overrides, study=True)


def test_every_preset_searches_at_random_on_its_data() -> None:
    assert groups()["study"] == sorted(DATA)
    for name, dataset in DATA.items():
        config = typed(f"study={name}", *NEEDS.get(name, []))
        assert config.data.dataset is dataset, name
        assert (config.search.sampler, config.search.scheduler) == (SamplerKind.random, SchedulerKind.none), name
        assert set(config.study.families) <= set(SPACES), name
        lowdata = name in ("cifar10_lowdata", "stl10")
        assert (config.study.sizes, len(config.study.draws)) == (
            ([50, 100], 5) if lowdata else ([], config_draws(name))
        )
        assert config.study.arm is (Arm.equal_epochs if name in ("default", "quick", "folder") else Arm.equal_compute)


def config_draws(name: str) -> int:
    return 1 if name in ("cifar10_full", "folder") else 3


def test_a_study_is_random_unless_it_says_otherwise_and_a_search_alone_is_not(tmp_path: Path) -> None:
    assert typed().search.sampler is SamplerKind.random
    assert typed("data=cifar10").training.epochs == load(["data=cifar10"]).training.epochs
    assert typed("search.sampler=tpe").search.sampler is SamplerKind.tpe
    assert typed("study=quick", "search.trials=3").search.trials == 3
    assert load(parse(["search", "x"]).overrides).search.sampler is SamplerKind.tpe
    assert is_study(["study.draws=[0]"]) and not is_study(["search.trials=3"])
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nsearch: {sampler: tpe, trials: 5}\n")
    own = [f"--config-dir={tmp_path}", "--config-name=mine"]
    assert (typed(*own).search.sampler, typed(*own).search.trials) == (SamplerKind.tpe, 5)
    assert typed(*own, "study=quick").data.dataset is DataSet.digits
    (tmp_path / "mine.yaml").write_text("defaults: [config, override study: quick, _self_]\ndata: {per_class: 7}\n")
    assert (typed(*own).study.draws, typed(*own).search.trials) == ([0, 1, 2], 6), "and not the default preset"
    assert typed(*own, "study=default").search.trials == load([]).search.trials
    with pytest.raises(InputError, match=r"mine\.yaml: data\.per_class=7 would have no effect"):
        _check_sizes(parse(["study", "x", *own]), typed(*own, "study.sizes=[5]"))


REFUSED = {
    "study x study=nope": "study=nope is not possible; study can be cifar10_full, cifar10_lowdata, default, folder",
    "study x study.families=[vgg]": "study.families has vgg; possible are resnet",
    "study x study.spaces=[]": "study.spaces=[]: at least one, each once",
    "study x study.spaces=[all]": "study.spaces",
    "study x space.shared=true": "space.shared=True would have no effect: a study has study.spaces=[full,shared]",
    "study x study.sizes=[0]": "study.sizes=[0]: images per class, each from 1",
    "study x study.sizes=[200]": "data.per_class=200: class 0 of digits has only 119 images to learn from; at most 116",
    "study x study.sizes=[2]": "data.val_fraction=0.4 of 2 images per class leaves none for validation",
    "study x study.sizes=[5,10] data.order=file": "use data.order=shuffled, whose draws are nested, or one size",
    "study x study.sizes=[5] data.per_class=7": "data.per_class=7 would have no effect: the study has study.sizes=[5]",
    "study x study.sizes=[50]": "with 50 per class draws 0 and 1 of digits share",
    "study x study=folder": "data.dataset=folder needs data.path=DIR",
    "study x study=cifar10_full runtime.data_dir=/nowhere": "/nowhere lacks cifar-10-batches-py",
    "study x study.families=[resnet,neural_ode] evaluate.conditions=[clean,attack] evaluate.attack.images=50": (
        "networks of neural_ode-d0 may choose their own steps (dopri5)"
    ),
    "plan study.families=[neural_ode] evaluate.conditions=[attack] evaluate.attack.images=50": (
        "set evaluate.attack.allow_adaptive=true to have the result labelled"
    ),
    "plan study=quick evaluate.conditions=[attack] evaluate.attack.images=100000": "are possible",
    "plan final study=quick": "The name 'final' is not possible",
    "search x study.arm=equal_parameters": "study.arm=equal_parameters is for `sweep study`",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_study_that_cannot_be_is_refused_before_anything_is_started(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(in_empty_directory(monkeypatch, tmp_path, capsys), line.split(), (REFUSED[line],))
