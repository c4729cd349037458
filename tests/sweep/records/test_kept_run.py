"""Run directories that an earlier version wrote, kept as it left them: whatever modules are called now, they are read.

`fixtures/kept-runs.tar.xz` holds `kept`, which was searched (asha stopped two), retrained and evaluated, and `cut`,
whose search was stopped by Ctrl-C: version 0.1.0, schema 2, ten digits of each class, networks of width 2.
"""

import re
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient, set_tracking_uri

from odenet.data.sets import load_test
from odenet.training.checkpoint import load_checkpoint
from odenet.training.config import identity
from odenet.training.export import load_classifier
from sweep import read_best as best_of
from sweep import read_trials
from sweep.config.compose import load
from sweep.records.best import read_best
from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, CurveRow, EvaluationRow, ManifestationRow, Phase, TrialRow, ranked
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows
from sweep.stages.evaluate import conditions
from sweep.stages.final import prepare_final
from sweep.tracking.delivery import main
from sweep.tracking.lines import experiment_of
from sweep.tracking.outbox import store_uri
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import open_study
from sweep.tuning.problem import build_problem
from sweep.worker.measurement import Bench, TestSet, measure
from tests.sweep.sweep_command import Command, in_empty_directory

ARCHIVE = Path(__file__).parents[2] / "fixtures" / "kept-runs.tar.xz"
KEPT = SweepFiles(Path("runs/kept"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kept")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, unpacked: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Command lines beside `runs/`, on a Ray that must not be started."""
    return in_empty_directory(monkeypatch, unpacked, capsys)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    monkeypatch.chdir(unpacked)


def test_the_archive_is_small_and_holds_no_code() -> None:
    assert ARCHIVE.stat().st_size < 1_000_000
    with tarfile.open(ARCHIVE) as archive:
        assert [name for name in archive.getnames() if name.endswith((".py", ".pkl"))] == []


def test_status_lists_the_trials_of_both_and_says_what_can_go_on(sweep: Command) -> None:
    overview, kept, cut = sweep("status"), sweep("status", "kept"), sweep("status", "cut")
    assert [answer.code for answer in (overview, kept, cut)] == [0, 0, 0], overview.err + kept.err + cut.err
    assert "kept" in overview.out and "cut" in overview.out
    assert "pruned" in kept.out and "confirm" in kept.out and "resume" not in kept.out
    assert "`sweep resume cut` goes on" in cut.out


def test_files_study_and_mlflow_agree_on_every_trial_of_both(sweep: Command) -> None:
    for name in ("kept", "cut"):
        answer = sweep("status", name, "--verify")
        assert answer.code == 0, answer.out + answer.err
        assert "agree on every trial" in answer.out


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated", "ignore:.*Any type hint")
def test_a_registered_model_that_was_deleted_is_said_with_what_brings_it_back(sweep: Command, tmp_path: Path) -> None:
    directory = Path(shutil.copytree("runs/kept", tmp_path / "kept"))
    uri = store_uri(directory, None)
    MlflowClient(uri).delete_registered_model("kept")
    answer = sweep("status", "kept", "--verify", f"runtime.runs_dir={tmp_path}")
    assert "MLflow has no model kept with the alias champion, it was deleted: remove" in answer.out, answer.err
    (directory / "delivered.json").unlink()
    main(directory, uri, experiment_of(directory), "no token", -1)
    set_tracking_uri("")
    assert sweep("status", "kept", "--verify", f"runtime.runs_dir={tmp_path}").code == 0


def test_the_report_is_written(sweep: Command, unpacked: Path) -> None:
    answer = sweep("report", "kept")
    assert (answer.code, answer.err) == (0, "")
    assert "trial" in (unpacked / "runs/kept/report.html").read_text()


def test_what_has_ended_is_neither_resumed_nor_retrained_nor_tested_again(sweep: Command) -> None:
    for words, needle in (
        (("resume", "kept"), "Nothing of kept was cut short"),
        (("final", "kept"), "kept has final trials already"),
        (("evaluate", "kept"), "kept was evaluated already"),
    ):
        answer = sweep(*words)
        assert answer.code == 2 and needle in answer.err, answer.err


def test_a_lost_table_of_what_has_ended_is_written_again_from_the_ledger(sweep: Command, tmp_path: Path) -> None:
    directory = Path(shutil.copytree("runs/kept", tmp_path / "kept", ignore=shutil.ignore_patterns("ml*")))
    tables = [directory / "trials.csv", directory / "final/trials.csv"]
    expected = [read_rows(table, TrialRow) for table in tables]
    tables[0].write_bytes(b"")
    tables[1].unlink()
    answer = sweep("resume", "kept", f"runtime.runs_dir={tmp_path}")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("could not be read: it was written again from ledger.csv.") == 2
    assert [read_rows(table, TrialRow) for table in tables] == expected


def test_a_search_that_was_cut_short_is_accepted_up_to_the_start_of_ray(sweep: Command) -> None:
    answer = sweep("resume", "cut", "search.accept_changes=true")  # its code is of another version
    assert (answer.code, answer.out) == (1, "Starting Ray (about 8 s)\n") and "Ray was started" in answer.err


def test_the_search_can_be_replayed(sweep: Command) -> None:
    answer = sweep("replay", "kept", "replay.repeats=1")
    assert answer.code == 0 and "trials begun" in answer.out, answer.err


def test_its_network_is_exported_and_a_notebook_reads_it(sweep: Command, tmp_path: Path) -> None:
    kept, runs = Path(shutil.copytree("runs/kept", tmp_path / "kept")), f"runtime.runs_dir={tmp_path}"
    exported = sweep("export", "kept", runs)
    assert exported.code == 0 and "logits differ by" in exported.out, exported.err
    assert load_classifier(kept / "export/kept.safetensors").classes == 10
    assert "kept was confirmed and retrained already" in sweep("extend", "kept", "search.more=2", runs).err
    assert len(read_trials(kept)) == 5 and best_of(kept) == read_best(kept / "best.yaml")


@pytest.mark.usefixtures("here")
def test_tables_are_read_whole() -> None:
    trials, final = read_rows(KEPT.trials, TrialRow), read_rows(KEPT.final.trials, TrialRow)
    assert len(trials) == 5 and {Outcome.done, Outcome.pruned} <= {row.outcome for row in trials}
    assert [row.phase for row in final] == [Phase.confirm, Phase.confirm, Phase.final]
    for files in (KEPT, KEPT.final):
        curves = read_rows(files.curves, CurveRow)
        rows = {row.number: row for row in read_rows(files.trials, TrialRow)}
        assert {number: row.epochs for number, row in rows.items()} == {
            number: max(curve.epoch for curve in curves if curve.number == number) for number in rows
        }
        assert read_rows(files.ledger, TrialRow)[-1].outcome.ended
    assert len(read_rows(KEPT.manifestations, ManifestationRow)) > 0


@pytest.mark.usefixtures("here")
def test_best_and_crowned_are_complete_experiments() -> None:
    best, crowned = read_best(KEPT.best), read_best(KEPT.crowned)
    row = ranked(read_rows(KEPT.trials, TrialRow))[0]
    assert identity(best.experiment) == row.config_hash
    assert best.provenance["parameters"] == row.parameters
    assert crowned.provenance["trial"] in {one.number for one in read_rows(KEPT.trials, TrialRow)}


@pytest.mark.usefixtures("here")
def test_the_study_is_read_with_every_trial() -> None:
    config = load([], KEPT.config)
    space = build_problem(config).space
    study = open_study(KEPT.directory / "study.journal", "kept", config.search.objectives)
    asked = Proposals(space, config.search, study, 0.1).asked
    assert [(one.number, one.trial_id) for one in asked] == [
        (row.number, row.trial_id) for row in read_rows(KEPT.trials, TrialRow)
    ]


@pytest.mark.usefixtures("here")
def test_the_final_network_scores_on_the_test_set_as_it_did() -> None:
    """To within two images: sums are taken in another order on other processors."""
    config = load([], KEPT.config)
    (checkpoint,) = KEPT.final.directory.glob("model-*.ckpt")
    test, network = load_test(config.data, config.runtime.data_dir), load_checkpoint(checkpoint).classifier()
    runtime, (wanted, _) = config.runtime.for_training(), conditions(config)
    bench = Bench(model=network, test=TestSet(test), config=config.evaluate, runtime=runtime)
    results = [one for condition in wanted for one in measure(condition, bench).values]
    results = [one for one in results if one.metric == "accuracy"]
    before = read_rows(KEPT.rows, EvaluationRow)
    clean = next(row for row in before if row.condition == CLEAN and row.metric == "accuracy")
    assert results[0].value == pytest.approx(clean.value, abs=2.5 / clean.n)
    assert [(one.condition, one.scheme.value, one.steps) for one in results] == [
        (row.condition, row.scheme, row.steps) for row in before if row.metric == "accuracy"
    ]


@pytest.mark.usefixtures("here")
def test_the_checkpoints_of_an_unfinished_trial_are_read() -> None:
    rows = {row.number: row for row in read_rows(Path("runs/cut/trials.csv"), TrialRow)}
    (waiting,) = [row for row in rows.values() if row.outcome is Outcome.interrupted]
    newest = max(Path(f"runs/cut/checkpoints/{waiting.number:06d}").glob("*.ckpt"))
    assert load_checkpoint(newest).epoch == waiting.epochs


def test_the_best_trials_can_be_retrained_where_the_search_recorded_no_candidates(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs/kept").mkdir(parents=True)
    for name in ("config.yaml", "trials.csv", "best.yaml"):
        (tmp_path / "runs/kept" / name).write_bytes((unpacked / "runs/kept" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    candidates = prepare_final(load([], KEPT.config), "kept").candidates
    rows = ranked(read_rows(KEPT.trials, TrialRow))[:2]
    assert [(one.number, one.best.provenance["parameters"]) for one in candidates] == [
        (row.number, row.parameters) for row in rows
    ]


def test_the_registered_model_is_loaded_under_the_names_by_which_it_was_pickled(unpacked: Path) -> None:
    """MLflow keeps a whole module as a pickle: modules of `odenet` that move are still found by their old names.

    To within rounding: it has plain strided convolutions, which another kernel computes than today's.
    """
    (file,) = unpacked.glob("runs/kept/mlartifacts/models/*/artifacts/data/model.pth")
    registered = torch.load(file, weights_only=False)
    kept = load_checkpoint(*unpacked.glob("runs/kept/final/model-*.ckpt")).build().eval()
    images = torch.linspace(0, 1, 3 * 64).reshape(3, 1, 8, 8)
    torch.testing.assert_close(registered(images), kept(images))


def test_no_other_file_names_a_module_by_which_it_was_written(unpacked: Path) -> None:
    for file in unpacked.rglob("*"):
        if file.is_file() and file.suffix not in {".pth", ".html"}:
            found = re.findall(rb"\bc?(?:sweep|odenet|search_spaces)\.[a-z]\w+", file.read_bytes())
            assert [name for name in found if not name.startswith(b"sweep.id")] == [], file  # that is a tag in MLflow
