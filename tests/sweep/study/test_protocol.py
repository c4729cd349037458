"""The frozen protocol: what of a study may change after its first trial, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces.common import COMMON
from sweep.__main__ import run
from sweep.config.search_config import SamplerKind
from sweep.errors import InputError
from sweep.execution import session
from sweep.records.files import append_record
from sweep.records.progress import SweepProgress
from sweep.records.protocol import deviations, read_protocol
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import DEVIATIONS, PROTOCOL, STUDY, SweepFiles
from sweep.records.tables import read_rows, write_rows
from sweep.report.inference import comparison
from sweep.stages import study as stage
from sweep.stages.study import extended_study, nothing_left, prepare_study, resume_study
from sweep.study.frozen import check_frozen, decision_rules, record_again, record_allowed
from sweep.study.members import members
from sweep.tracking.lines import OUTBOX
from sweep.tuning.ask_and_tell import random_parameters
from tests.sweep.study.study_files import begun_study, searched_study, study_config
from tests.sweep.sweep_files import session_on


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("searched")
    searched_study(directory / "runs")
    return directory


@pytest.fixture
def place(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a directory with a searched study `tiny` below runs, to be there."""
    shutil.copytree(searched / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(file: Path, **values: Any) -> None:
    """Set dotted keys, written with __, of a YAML file."""
    content = yaml.safe_load(file.read_text())
    for name, value in values.items():
        *parents, last = name.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
    file.write_text(yaml.safe_dump(content))


def test_a_protocol_says_what_is_planned_before_anything_is_started(tmp_path: Path) -> None:
    begun_study(tmp_path)
    protocol = read_protocol(tmp_path / "tiny")
    assert protocol is not None
    assert protocol.terms == {
        "families": ["resnet", "continuous"], "baseline": "resnet", "spaces": ["full"], "sizes": [5], "draws": [0, 1],
        "overlapping_draws": False, "arm": "equal_epochs", "rules": decision_rules(),
        "selection": "i.i.d. random search, no trial is stopped early",
        "estimand": "mean over draws of the data and seeds; the draws are disjoint",
    }  # fmt: skip
    assert list(protocol.members) == ["resnet-d0", "continuous-d0", "resnet-d1", "continuous-d1"]
    asked = protocol.asked_of("resnet-d1")
    assert (asked["search.trials"], asked["training.epochs"], asked["data.draw"], asked["final.seeds"]) == (2, 4, 1, 2)
    spaces = {name: one["space"] for name, one in protocol.members.items()}
    assert spaces["resnet-d0"] == spaces["resnet-d1"] != spaces["continuous-d0"]
    assert (protocol.trials, deviations(tmp_path / "tiny")) == (2, [])


def test_families_are_planned_in_their_full_space_and_in_the_one_that_all_share(tmp_path: Path) -> None:
    config = begun_study(tmp_path, "study.draws=[0]", "study.spaces=[full,shared]", "space.fix.model.scheme=rk4")
    protocol, planned = read_protocol(tmp_path / "tiny"), members(config)
    assert protocol is not None
    assert list(protocol.members) == ["resnet-d0", "continuous-d0", "resnet.shared-d0", "continuous.shared-d0"]
    assert protocol.terms["spaces"] == ["full", "shared"]
    asked = {name: protocol.asked_of(name) for name in protocol.members}
    assert asked["continuous.shared-d0"]["family"] == "continuous.shared"
    assert len({one["space"] for one in asked.values()}) == 4
    spaces = {name: one.space.build() for name, one in planned.items()}
    assert {tuple(spaces[name].parameters) for name in asked if "shared" in name} == {tuple(COMMON)}
    assert spaces["continuous.shared-d0"].fixed == {"model.network": "continuous", "model.scheme": "rk4"}
    tried = [random_parameters(spaces[name], planned[name].search, 0) for name in asked if "shared" in name]
    assert len({tuple(one[key] for key in COMMON) for one in tried}) == 1, "all families try the same configurations"
    check_frozen(planned["continuous.shared-d0"], "tiny/continuous.shared-d0")
    with pytest.raises(InputError, match="its space is another than the protocol's"):
        check_frozen(planned["continuous-d0"], "tiny/continuous.shared-d0")


@pytest.mark.parametrize(
    ("words", "term", "says"),
    [
        (["search.sampler=tpe"], "selection", "adaptive: tpe, none; its trials are no i.i.d. sample of the space"),
        (["search.scheduler=asha"], "selection", "adaptive: random, asha"),
        (["study.draws=[3]"], "estimand", "mean over seeds, conditional on this training set"),
    ],
)
def test_what_is_no_random_search_over_draws_is_labelled(tmp_path: Path, words: list, term: str, says: str) -> None:
    begun_study(tmp_path, *words)
    protocol = read_protocol(tmp_path / "tiny")
    assert protocol is not None
    assert protocol.terms[term].startswith(says)


REFUSED: dict[str, tuple[str, ...]] = {
    "final tiny/resnet-d0 final.seeds=7": ("final.seeds is 7, and the protocol has 2", "another study"),
    "final tiny/resnet-d0 final.top=1": ("final.top is 1",),
    "final tiny/resnet-d0 search.seed=9": ("search.seed is 9",),
    "resume tiny search.budget.hours=1": ("search.budget.hours is 1", "tiny/resnet-d0 departs from the protocol"),
    "resume tiny/continuous-d1 search.budget.gflops=1": ("search.budget.gflops is 1",),
    "extend tiny/resnet-d0 search.more=2": ("as many trials: extend all of them, `sweep extend tiny search.more=2`",),
    "extend tiny": ("How many trials more?",),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_departs_from_the_protocol_is_refused_with_one_message(
    place: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "runs/tiny/continuous-d1/progress.json").unlink()  # as if its search were cut short
    before = {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()}
    assert run(line.split()) == 2
    said = capsys.readouterr().err
    assert all(one in said for one in REFUSED[line]), said
    assert len(said.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()} == before


CONFIG = "resnet-d0/config.yaml"
CHANGED: dict[str, tuple[str, dict[str, Any], str]] = {
    "sampler": (CONFIG, {"search__sampler": "tpe"}, "search.sampler is tpe, and the protocol has random"),
    "scheduler": (CONFIG, {"search__scheduler": "asha"}, "search.scheduler is asha, and the protocol has none"),
    "epochs": (CONFIG, {"training__epochs": 5}, "training.epochs is 5, and the protocol has 4"),
    "trials": (CONFIG, {"search__trials": 3}, "search.trials is 3, and the protocol has 2"),
    "data": (CONFIG, {"data__val_fraction": 0.2}, "data.val_fraction is 0.2, and the protocol has 0.4"),
    "draw": (CONFIG, {"data__draw": 1}, "data.draw is 1, and the protocol has 0"),
    "arm": (CONFIG, {"study__arm": "equal_parameters"}, "study.arm is equal_parameters, and the protocol has equal"),
    "space": (CONFIG, {"space__fix": {"optim.lr": 0.1}}, "its space is another than the protocol's"),
    "family": (CONFIG, {"space__name": "continuous"}, "its space is another than the protocol's"),
    "edited": (PROTOCOL, {"protocol__settings__training.epochs": 5}, "was changed after the study began"),
    "sweeps": (STUDY, {"study__draws": [0]}, "tiny was changed after it began: it has the sweeps resnet-d0, cont"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_study_that_was_changed_after_it_began_is_refused(
    place: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, values, says = CHANGED[what]
    changed(place / "runs/tiny" / file, **values)
    line = "resume tiny" if file == STUDY else "final tiny/resnet-d0"
    assert run(line.split()) == 2
    assert says in capsys.readouterr().err


def test_a_study_whose_rules_are_not_fixed_goes_no_further(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "runs/tiny" / PROTOCOL).unlink()
    for line in ("final tiny/resnet-d0", "evaluate tiny/resnet-d0", "resume tiny"):
        assert run(line.split()) == 2
        assert "the rules of tiny are not fixed" in capsys.readouterr().err


def test_a_study_of_a_version_without_protocols_goes_on_as_before(place: Path) -> None:
    (place / "runs/tiny" / PROTOCOL).unlink()
    content = yaml.safe_load((place / "runs/tiny" / STUDY).read_text())
    content["study"] = {key: content["study"][key] for key in ("families", "draws")}
    (place / "runs/tiny" / STUDY).write_text(yaml.safe_dump(content))
    config = study_config(place / "runs")
    assert read_protocol(place / "runs/tiny") is None
    assert check_frozen(replace(config, space=members(config)["resnet-d0"].space), "tiny/resnet-d0") is None
    with pytest.raises(InputError, match="without a protocol: extend one of its sweeps"):
        extended_study(replace(config, search=replace(config.search, more=1)), "tiny")


def test_other_rules_of_decision_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = members(study_config(place / "runs"))["resnet-d0"]
    assert check_frozen(member, "tiny/resnet-d0") is not None
    monkeypatch.setattr(comparison, "MEANINGFUL", 0.6)
    with pytest.raises(InputError, match=r"rules of decision are not those .* meaningful was 0\.75, is 0\.6"):
        check_frozen(member, "tiny/resnet-d0")
    with pytest.raises(InputError, match="rules of decision are not those"):
        resume_study(study_config(place / "runs"), "tiny")


def test_other_data_is_refused(place: Path) -> None:
    member = members(study_config(place / "runs"))["resnet-d0"]
    with pytest.raises(InputError, match="its images have the hash 1234, and the protocol has"):
        check_frozen(member, "tiny/resnet-d0", "1234")


def test_what_is_allowed_is_recorded_once(place: Path) -> None:
    member = members(study_config(place / "runs"))["resnet-d0"]
    evaluated = replace(member, evaluate=replace(member.evaluate, step_factors=[1.0, 8.0]))
    check_frozen(evaluated, "tiny/resnet-d0")
    assert deviations(place / "runs/tiny") == [], "a check writes nothing: the stage may be refused otherwise"
    for _ in range(2):
        record_allowed(evaluated, "tiny/resnet-d0")
    accepting = replace(member, search=replace(member.search, accept_changes=True))
    record_allowed(accepting, "tiny/resnet-d0")
    record_again(member, "tiny/resnet-d0", Path("final~1"))
    found = deviations(place / "runs/tiny")
    assert [one["what"] for one in found] == [
        "evaluate.step_factors is [1.0, 8.0], and the protocol has [0.5, 1.0, 2.0, 4.0]",
        "changed code, versions or modules were accepted (search.accept_changes)",
        "final training done again; the former is in final~1",
    ]
    assert {one["sweep"] for one in found} == {"tiny/resnet-d0"}
    assert all(one["when"] and one["protocol"] for one in found)


def test_all_searches_of_a_study_are_extended_alike(place: Path) -> None:
    from sweep.records.protocol import record_deviation

    config = study_config(place / "runs")
    longer = extended_study(replace(config, search=replace(config.search, more=3)), "tiny")
    assert (longer.search.trials, longer.search.more) == (5, 0)
    with pytest.raises(InputError, match=r"search\.trials is 5, and the protocol has 2"):
        resume_study(longer, "tiny")
    protocol = read_protocol(place / "runs/tiny")
    assert protocol is not None
    record_deviation(protocol, "tiny", "all searches extended to 5 trials", trials=5)
    assert set(resume_study(longer, "tiny").searches) == set(protocol.members)
    (place / "runs/tiny/resnet-d1/final").mkdir()
    with pytest.raises(InputError, match="resnet-d1 was confirmed and retrained already"):
        extended_study(replace(config, search=replace(config.search, more=3)), "tiny")


def test_an_extended_study_searches_on_in_all_its_sweeps_and_then_goes_its_way(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, list[int]]] = []

    def on_ray(works: list, title: str, _: Path) -> None:
        ran.append((title, [work.batch.source.total for work in works]))

    monkeypatch.setattr(stage, "run_works", on_ray)
    config = study_config(place / "runs")
    longer = extended_study(replace(config, search=replace(config.search, more=3)), "tiny")
    report = stage.extend_study(session_on(longer, "tiny"))
    # The best two of a search are confirmed over two seeds, and the crowned one retrained over two.
    assert ran == [("search tiny", 4 * [5]), ("final tiny", 4 * [2 * 2 + 2])]
    assert [one["what"] for one in deviations(place / "runs/tiny")] == ["all searches extended to 5 trials"]
    assert yaml.safe_load((place / "runs/tiny" / STUDY).read_text())["search"]["trials"] == 5
    assert report.is_file()
    more = replace(longer, search=replace(longer.search, more=3))
    with pytest.raises(
        InputError, match=r"retrained already\. `sweep extend tiny search\.more=3 --again` goes on with"
    ):
        extended_study(more, "tiny")
    tested = SweepFiles(place / "runs/tiny/resnet-d1")
    tested.rows.write_text("what the test set said")
    with pytest.raises(InputError, match="run `sweep deliver tiny` first"):
        extended_study(more, "tiny", again=True)
    (place / "runs/tiny" / OUTBOX).unlink()
    longest = extended_study(more, "tiny", again=True)
    stage.extend_study(session_on(longest, "tiny"))
    assert ran[2:] == [("search tiny", 4 * [8]), ("final tiny", 4 * [2 * 2 + 2])]
    assert (tested.directory / "final~1/rows.csv").read_text() == "what the test set said"
    assert not tested.rows.exists()
    again = [one["sweep"] for one in deviations(place / "runs/tiny") if "done again" in one["what"]]
    assert again == [f"tiny/{part}" for part in members(config)]


def test_a_study_with_nothing_left_says_so_without_starting_anything(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "connected", lambda *_: pytest.fail("Ray was started"))
    for member in members(study_config(place / "runs")):
        SweepProgress(finished=True).write(SweepFiles(place / "runs/tiny" / member).final.progress)
    assert run(["resume", "tiny"]) == 0, "a report that was not written is"
    assert "Open the report: runs/tiny/report.html" in capsys.readouterr().out
    assert run(["resume", "tiny"]) == 2
    said = capsys.readouterr().err
    assert "Nothing of tiny was cut short. `sweep extend tiny search.more=10` adds trials to all its searches" in said
    assert "`sweep final" not in said, "a study has no final training of its own"
    (place / "runs/tiny/resnet-d1/progress.json").unlink()
    assert not nothing_left(study_config(place / "runs"), "tiny")


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.per_class=24", "study.draws=[0,1,2,3,4]"], "none up to 23 per class, as the smallest class has 116"),
        (["data.per_class=50", "study.draws=[0,1,2]"], r"with 50 per class draws 0 and 1 of digits share \d+ images"),
        (["study.draws=[0,5]", "data.per_class=23"], r"draws 0 and 5 of digits share \d+ images"),
        (["data.per_class=null"], "with all images draws 0 and 1 of digits share 1201 images"),
        (["study.sizes=[5,40]", "study.draws=[0,1,2,3,4]"], "with 40 per class draws"),
        (["data.per_class=200"], "at most 116 fit into every class"),
        (["data.per_class=40", "data.order=file", "study.draws=[0,1,2]"], r"draws 0 \.\.\. 1 fit in file order"),
    ],
)  # fmt: skip
def test_draws_that_share_images_are_refused_before_anything_is_started(
    tmp_path: Path, words: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        prepare_study(study_config(tmp_path, *words), "tiny")


def test_five_draws_of_digits_are_disjoint_up_to_23_per_class_and_more_can_be_allowed(tmp_path: Path) -> None:
    five = ["study.draws=[0,1,2,3,4]", "study.families=[resnet]"]
    begun_study(tmp_path, *five, "data.per_class=23")
    begun_study(tmp_path / "more", *five, "data.per_class=24", "study.overlapping_draws=true")
    disjoint, shared = read_protocol(tmp_path / "tiny"), read_protocol(tmp_path / "more/tiny")
    assert disjoint is not None
    assert shared is not None
    assert (disjoint.terms["overlapping_draws"], shared.terms["overlapping_draws"]) == (False, True)
    assert "the corrected resampled t is needed" in shared.terms["estimand"]


def test_a_study_of_a_learning_sampler_keeps_it(tmp_path: Path) -> None:
    assert study_config(tmp_path, "search.sampler=tpe").search.sampler is SamplerKind.tpe


@pytest.mark.parametrize(
    "changes",
    [{"when": 5}, {"what": None}, {"sweep": {}}, {"trials": True}, {"trials": -5}, {"trials": 2.5}, {"protocol": "1"}],
)
def test_a_deviation_that_no_command_records_is_refused(tmp_path, changes):
    begun_study(tmp_path)
    frozen = read_protocol(tmp_path / "tiny")
    record = {"when": "now", "sweep": "tiny", "what": "extended", "protocol": frozen.hash, "trials": 9, **changes}
    append_record(tmp_path / "tiny" / DEVIATIONS, record)
    with pytest.raises(InputError, match=r"deviations\.jsonl"):
        read_protocol(tmp_path / "tiny")


def test_what_cannot_be_measured_of_a_study_is_told_before_anything_is_started(place, capsys):
    """Frost needs overlays, and a measurement its networks; neither are there."""
    for file in (place / "runs/tiny").glob("*/trials.csv"):
        files = SweepFiles(file.parent)
        files.final.directory.mkdir()
        write_rows(files.final.trials, TrialRow, [replace(read_rows(file, TrialRow)[0], phase=Phase.final)])
    words = ["evaluate", "tiny", "evaluate.conditions=[corruption]", "evaluate.corruptions=[frost]"]
    assert run([*words, "runtime.device=cpu"]) == 2
    assert "none can be measured" in capsys.readouterr().err
    assert run(["evaluate", "tiny", "evaluate.conditions=[clean]", "runtime.device=cpu"]) == 2
    told = capsys.readouterr().err
    assert "model-0.ckpt" in told and "Ray" not in told


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate.conditions=[attack]", "evaluate.attack.images=100000"],
        ["evaluate.conditions=[corruption]", "evaluate.corruptions=[frost]"],
    ],
)
def test_a_study_whose_conditions_the_test_set_does_not_allow_is_not_begun(tmp_path, words):
    with pytest.raises(InputError, match=r"are possible|none can be measured"):
        prepare_study(study_config(tmp_path, *words), "tiny")
