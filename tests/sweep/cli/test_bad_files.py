"""What lies on disk: each damaged, foreign or missing file ends with code 2 and one message, before anything starts."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torchvision.datasets import CIFAR10

from sweep.records.predictions import Predictions, write_predictions
from sweep.records.rows import EvaluationRow, Phase
from sweep.records.tables import write_rows
from tests.sweep.sweep_command import Command, assert_refused, in_empty_directory
from tests.sweep.sweep_files import trial, write_sweep

OF_THE_NETWORK = ("family", "dataset", "per_class", "draw", "seed", "config_hash", "data_hash")


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


def fake_cifar() -> None:
    folder = Path("data") / CIFAR10.base_folder
    folder.mkdir(parents=True)
    for name in [name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]] + [CIFAR10.meta["filename"]]:
        (folder / name).write_bytes(b"truncated")


def searched() -> None:
    write_sweep(Path("runs"), [trial(0)])


def with_final(*phases: Phase, checkpoint: bytes | None = None) -> Callable[[], None]:
    def prepare() -> None:
        searched()
        rows = [trial(number, phase=phase) for number, phase in enumerate(phases)]
        write_rows(Path("runs/x/final/trials.csv"), type(rows[0]), rows)
        if checkpoint is not None:
            Path("runs/x/final/model-0.ckpt").write_bytes(checkpoint)

    return prepare


def evaluated() -> None:
    with_final(Phase.final)()
    network = trial(0, phase=Phase.final)
    rows = [
        EvaluationRow(
            **{name: getattr(network, name) for name in OF_THE_NETWORK}, scheme="euler", steps=2, condition=condition,
            severity=0.0, split="test", metric=metric, value=0.5, n=596, trained_scheme="euler", trained_steps=2,
        )
        for condition in ("clean", "manifestation")
        for metric in ("accuracy", "loss")
    ]  # fmt: skip
    write_rows(Path("runs/x/rows.csv"), EvaluationRow, rows)
    labels = np.zeros(596, dtype=np.int64)  # of which every second is told
    told = Predictions(labels, np.arange(596), np.arange(596)[None] % 2, np.array([network.seed]))
    write_predictions(Path("runs/x/predictions.npz"), told)


def finished() -> None:
    with_final(Phase.final)()
    Path("runs/x/final/progress.json").write_text('{"seconds": 9.0, "finished": true}')


def put(path: str, content: str | bytes) -> Callable[[], None]:
    """A sweep of which one file holds something else."""

    def prepare() -> None:
        searched()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def pipe(path: str) -> Callable[[], None]:
    """A sweep of which one file is a named pipe, which nobody will ever write to."""

    def prepare() -> None:
        searched()
        Path(path).unlink(missing_ok=True)
        os.mkfifo(path)

    return prepare


def changed(path: str, before: str, after: str) -> Callable[[], None]:
    def prepare() -> None:
        searched()
        text = Path(path).read_text()
        assert text.count(before) >= 1
        Path(path).write_text(text.replace(before, after, 1))

    return prepare


def best_with(section: str, key: str, value: Any) -> Callable[[], None]:
    """runs/x/best.yaml with one value changed; `section` may be dotted."""

    def prepare() -> None:
        searched()
        content = yaml.safe_load(Path(BEST).read_text())
        node = content
        for part in filter(None, section.split(".")):
            node = node[part]
        node[key] = value
        Path(BEST).write_text(yaml.safe_dump(content))

    return prepare


BEST, TRIALS, CONFIG = "runs/x/best.yaml", "runs/x/trials.csv", "runs/x/config.yaml"
RETRAIN = f"final {BEST}"
TAG = "!!python/object/apply:os.mkdir [hacked]"

# what is on disk, command line, what the message says
WRONG_FILES: dict[str, tuple[Callable[[], object], str, tuple[str, ...]]] = {
    # run directories
    "existing name": (searched, "search x", ("x exists already in", "choose another name, go on with it by")),
    "existing study": (searched, "study x", ("x exists already in",)),
    "file as runs": (lambda: Path("r").touch(), "search x runtime.runs_dir=r", ("cannot be made", "choose another by")),
    "file as name": (put("runs/y", ""), "search y", ("y exists already in",)),
    "file in the plan's way": (lambda: Path("r").touch(), "plan runtime.runs_dir=r/s", ("cannot be written to",)),
    "other name": (searched, "status y", ("There is no sweep y in", "there are: x")),
    "other name for final": (searched, "final y", ("There is no sweep y in", "there are: x")),
    "damaged data": (fake_cifar, "search x data=cifar10", ("damaged: cifar-10-batches-py/data_batch_1", "download")),
    "nothing done": (
        changed(TRIALS, ",done,", ",diverged,"), "final x", ("x has no trial that ended done",),
    ),
    "final twice": (finished, "final x", ("x has final trials already; `sweep final x --again`", "trains again")),
    "not final yet": (searched, "evaluate x", ("x has no final network: run `sweep final x` first",)),
    "only confirmed": (with_final(Phase.confirm), "evaluate x", ("x has no final network",)),
    "tested twice": (evaluated, "evaluate x", ("test data is used once", "remove that file")),
    "tested by another version": (
        lambda: [with_final(Phase.final)(), Path("runs/x/rows.csv").write_text("a result")],
        "evaluate x",
        ("rows.csv: the columns must be",),
    ),
    "no checkpoint": (with_final(Phase.final), "evaluate x", ("model-0.ckpt", "No such file")),
    "checkpoint is a pipe": (
        lambda: [with_final(Phase.final)(), os.mkfifo("runs/x/final/model-0.ckpt")], "evaluate x", ("a named pipe",),
    ),
    "damaged checkpoint": (with_final(Phase.final, checkpoint=b"?"), "evaluate x", ("model-0.ckpt is no odenet",)),
    "no CUDA to retrain on": (searched, "final x runtime.device=cuda", ("torch sees no CUDA device here",)),
    "no CUDA to test on": (with_final(Phase.final), "evaluate x runtime.device=cuda", ("torch sees no CUDA device",)),
    "changed after the search": (
        searched, "final x model.width=4", ("model.width=4: what is learned is fixed by", CONFIG, "final.*"),
    ),
    "other data after the search": (searched, "evaluate x data=cifar10", ("what is learned is fixed by", CONFIG)),
    "other trials after the search": (searched, "final x search.trials=9", ("what is learned is fixed by",)),
    "wrong type after the search": (searched, "final x final.top=all", ("final.top=all", "could not be converted")),
    # config.yaml
    "empty config": (put(CONFIG, ""), "final x", (CONFIG, "is damaged: it needs the keys model, data, optim")),
    "list as config": (put(CONFIG, "[1]"), "final x", (CONFIG, "is damaged: it needs the keys")),
    "config with a tag": (put(CONFIG, TAG), "final x", (CONFIG, "cannot be read", "could not determine a constructor")),
    "config cut short": (put(CONFIG, "model: {width: "), "evaluate x", (CONFIG, "cannot be read")),
    "config not text": (put(CONFIG, b"\xff\xfe\x00"), "final x", (CONFIG, "cannot be read")),
    "config, no truth": (changed(CONFIG, "width: 2", "width: !!bool x"), "final x", (CONFIG, "cannot be read")),
    "config, endless": (changed(CONFIG, "width: 2", f"width: {5000 * '9'}"), "final x", (CONFIG, "cannot be read")),
    "own config, no truth": (
        put("mine.yaml", "training: {epochs: !!bool x}"), "plan --config-dir . --config-name mine",
        ("mine.yaml cannot be read",),
    ),
    "config is a pipe": (pipe(CONFIG), "evaluate x", ("runs/x has no config.yaml",)),
    "table is a pipe": (pipe(TRIALS), "status x", (TRIALS, "it is no regular file")),
    "best is a pipe": (pipe(BEST), RETRAIN, (BEST, "it is no regular file")),
    "progress is a pipe": (pipe("runs/x/progress.json"), "status x", ("it is no regular file", "Remove it")),
    "outbox is a pipe": (pipe("runs/x/outbox.jsonl"), "status x", ("outbox.jsonl cannot be read", "no regular file")),
    "config, other key": (changed(CONFIG, "  width:", "  widht:"), "final x", ("model.widht", "not in 'ModelConfig'")),
    "config, other type": (changed(CONFIG, "width: 2", "width: two"), "final x", ("model.width", "to Integer")),
    # trials.csv
    "other columns": (put(TRIALS, "a,b\n1,2\n"), "status", (TRIALS, "the columns must be schema, sweep", "has a, b")),
    "empty table": (put(TRIALS, ""), "status x", (TRIALS, "the columns must be", "the file has nothing")),
    "table not text": (put(TRIALS, b"\xff"), "status x", (TRIALS, "cannot be read", "codec")),
    "endless header": (put(TRIALS, 9000 * "x"), "status x", (TRIALS, f"the file has {600 * 'x'}...")),
    "endless cell": (put(TRIALS, '"' + 200_000 * "x"), "status x", (TRIALS, "cannot be read", "field limit")),
    "newer table": (changed(TRIALS, "\n2,", "\n3,"), "final x", ("line 2: schema '3'", "reads schema 2")),
    "row cut short": (changed(TRIALS, ",c0ffee,da7a", ""), "final x", ("line 2: 31 cells where 33 are needed",)),
    "unknown outcome": (changed(TRIALS, ",done,", ",fine,"), "status x", ("line 2, column outcome: 'fine'",)),
    "unknown phase": (changed(TRIALS, ",search,", ",warmup,"), "status x", ("column phase: 'warmup'",)),
    "text as number": (changed(TRIALS, ",0.5,2,", ",half,2,"), "status x", ("column objective: 'half'",)),
    "list of parameters": (changed(TRIALS, '"{""', '"[""'), "final x", ("column parameters",)),
    "foreign parameters": (changed(TRIALS, "optim.lr", "optim.rl"), "final x", ("optim.rl is no key", "optim.lr")),
    # best.yaml
    "no best.yaml": (searched, "final nope.yaml", ("nope.yaml cannot be read", "No such file")),
    "best.yaml is a directory": (lambda: Path("d.yaml").mkdir(), "final d.yaml", ("d.yaml cannot be read",)),
    "newer best": (best_with("", "schema", 3), RETRAIN, (BEST, "schema 3", "reads schema 2", "newer version: update")),
    "odd schema": (best_with("", "schema", "one"), RETRAIN, ("schema 'one'; this version reads schema 2",)),
    "best, no day": (put(BEST, "a: 2026-13-45"), RETRAIN, (BEST, "cannot be read as YAML", "month")),
    "not YAML": (put(BEST, "a: [1"), RETRAIN, (BEST, "cannot be read as YAML")),
    "YAML with a tag": (put(BEST, TAG), RETRAIN, ("cannot be read as YAML", "could not determine a constructor")),
    "deep YAML": (put(BEST, 5000 * "["), RETRAIN, ("cannot be read as YAML", "recursion")),
    "other YAML": (put(BEST, "a: 1"), RETRAIN, ("is no best.yaml: it needs the keys schema, experiment",)),
    "best not text": (put(BEST, b"\xff"), RETRAIN, ("cannot be read as YAML",)),
    "best, no experiment": (best_with("", "experiment", None), RETRAIN, ("must be a mapping, not None",)),
    "best, other key": (best_with("experiment.model", "widht", 4), RETRAIN, ("model.widht is no key; possible are",)),
    "best, other type": (best_with("experiment.model", "width", "4"), RETRAIN, ("model.width='4': must be of type",)),
    "best, other choice": (best_with("experiment.model", "scheme", "rk5"), RETRAIN, ("must be one of euler",)),
    "best, out of range": (best_with("experiment.optim", "lr", -1.0), RETRAIN, ("optim.lr=-1.0: must be positive",)),
    "best, huge": (best_with("experiment.optim", "lr", 10**400), RETRAIN, (BEST, "too large")),
    "best, impossible": (best_with("experiment.model", "basis", "hat"), RETRAIN, (BEST, "never reads node 1")),
    "best, again": (put("runs/x-retrained/y", ""), RETRAIN, ("x-retrained exists already in",)),
    "best, provenance": (best_with("", "provenance", [1]), RETRAIN, ("provenance must be a mapping",)),
    "best, objective": (best_with("provenance", "objective", "high"), RETRAIN, ("objective='high': must be a number",)),
    "best, trial": (best_with("provenance", "trial", "five"), RETRAIN, ("provenance.trial='five': must be the",)),
    "best, parameters": (best_with("provenance", "parameters", [1]), RETRAIN, ("a mapping of what was varied",)),
    "best, sweep": (best_with("provenance", "sweep", 3), RETRAIN, ("provenance.sweep=3: must be the name",)),
    "best, path as sweep": (best_with("provenance", "sweep", "../../etc"), RETRAIN, ("is not possible", "at most 64")),
    "best, changed": (searched, f"final {BEST} model.width=4", ("model.width=4: what is learned is fixed by", BEST)),
    "best, no data": (best_with("experiment.data", "dataset", "mnist"), RETRAIN, ("MNIST was asked for", "lacks")),
    "best, no CUDA": (searched, f"final {BEST} runtime.device=cuda", ("torch sees no CUDA device here",)),
}  # fmt: skip


@pytest.mark.parametrize(("prepare", "line", "needles"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrong_files_are_refused_with_one_message_that_names_the_place(sweep, prepare, line, needles):
    prepare()
    assert_refused(sweep, line.split(), needles)


def test_a_taken_port_is_refused_with_the_way_to_another(sweep):
    put("runs/x/mlflow.db", "")()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert_refused(
            sweep, ["ui", "x", f"tracking.port={port}"], (f"Port {port} on 127.0.0.1 is taken", "tracking.port=")
        )
