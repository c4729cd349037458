"""A file never runs code by itself: what names modules of the user's own is refused until they name them, too."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from odenet.training.config import identity
from sweep.cli.existing import existing, from_best
from sweep.cli.parse import parse
from sweep.config.compose import load
from sweep.config.modules import kept_texts
from sweep.config.schema import save
from sweep.errors import InputError
from sweep.records.best import write_best
from sweep.records.files import write_text
from sweep.records.provenance import check_origin, compare_origin, origin
from sweep.records.rows import TrialRow
from sweep.records.run_directory import MODULES, SweepFiles
from sweep.records.tables import write_rows
from sweep.tuning.problem import build_problem
from tests.own_names import NETWORK, taken_away
from tests.sweep.pretended import data
from tests.sweep.sweep_files import trial

MARKED = NETWORK.format(name="marked_net") + "open('imported', 'a').close()\n"
WORDS = ["modules=[marked.networks]", "space=marked_net", "model.width=2", "data.per_class=5", "training.epochs=2"]
PARAMETERS = {"model.network": "marked_net", "model.nodes": 1}

# Run one after the other in a process that has imported nothing of the user's: code and message.
LINES = {
    "status x": (0, ""),
    "final best.yaml": (
        2,
        "best.yaml was made with the user's own modules marked.networks, and a file never runs",
    ),
    "resume x": (2, "if you trust them, name them, modules=[marked.networks], and have them in the working directory"),
    "final x": (2, "config.yaml was made with the user's own modules marked.networks"),
    "plan modules=[cmaes]": (2, "site-packages/cmaes/__init__.py defines neither NETWORKS nor SPACES"),
}
RUN = """
import json, shlex, sys
from pathlib import Path
from sweep.__main__ import run
for line in json.loads(sys.argv[1]):
    print("code", run(line.split()), Path("imported").exists())
    print(f"end of {line}", file=sys.stderr)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a module, and a sweep that was made with it."""
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked/__init__.py").write_text("")
    (tmp_path / "marked/networks.py").write_text(MARKED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(place: Path) -> SweepFiles:
    """What a search with the module leaves in runs/x, and its best.yaml beside it; in this process it is imported."""
    config, files = load(WORDS), SweepFiles(place / "runs/x")
    row = trial(0, family="marked_net", parameters=PARAMETERS)
    write_text(files.config, save(config))
    write_rows(files.trials, TrialRow, [row])
    write_rows(files.ledger, TrialRow, [row])
    best = build_problem(config).best(row)
    for path in (files.best, place / "best.yaml"):
        write_best(path, best)
    for name, text in kept_texts(config.modules).items():
        write_text(files.directory / MODULES / name, text)
    return files


def test_nothing_is_imported_because_a_file_says_so_nor_before_what_is_installed(place: Path) -> None:
    with taken_away():
        made(place)
    (place / "imported").unlink()
    (place / "cmaes.py").write_text("SPACES = {}\nopen('imported', 'a').close()\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, json.dumps(list(LINES))],
        cwd=place, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    codes = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("code")]
    messages = done.stderr.split("end of ")
    for (line, (code, message)), found, said in zip(LINES.items(), codes, messages, strict=False):
        assert found == [str(code), "False"], (line, said)
        assert message in said, (line, said)
    assert "Traceback" not in done.stderr


def test_what_was_made_is_gone_on_with_and_retrained_where_its_module_is_named(place: Path) -> None:
    with taken_away():
        made(place)
        config, name = existing(parse(["final", "x", "modules=[marked.networks]"]))
        assert (name, config.modules, config.model.network.value) == ("x", ["marked.networks"], "marked_net")
        config, name, best = from_best(Path("best.yaml"), ["modules=[marked.networks]"])
        assert (name, config.space.name) == ("x-retrained", "marked_net")
        assert config.space.build().fixed["model.network"] == "marked_net"
        assert best.experiment.model.network.value == config.model.network.value == "marked_net"


def test_a_module_that_has_changed_since_is_refused_until_that_is_accepted(place: Path) -> None:
    with taken_away():
        files = made(place)
        began = origin(build_problem(load(WORDS)).space, next(iter(data().values())), ["marked.networks"])
        check_origin(files.origin, began, accept=False)
    (place / "marked/networks.py").write_text(f"{MARKED}\n# changed\n")
    named = "modules=[marked.networks]"
    with taken_away():
        load(WORDS)
        now = origin(build_problem(load(WORDS)).space, next(iter(data().values())), ["marked.networks"])
        with pytest.raises(InputError, match=r"code of marked.networks was \w{16}, is \w{16}"):
            compare_origin(files.origin, now, accept=False)
        kept = files.directory / MODULES
        with pytest.raises(InputError, match=f"marked.networks are not those that .* was made with, kept in {kept}"):
            existing(parse(["extend", "x", named, "search.more=1"]))
        with pytest.raises(InputError, match=r"marked\.networks are not those that best\.yaml was made with"):
            from_best(Path("best.yaml"), [named])
        accepted = "search.accept_changes=true"
        assert existing(parse(["resume", "x", named, accepted]))[1] == "x"
        assert from_best(Path("best.yaml"), [named, accepted])[1] == "x-retrained"


def test_images_and_spaces_of_the_users_own_are_taken_from_the_file_or_named_again(place: Path) -> None:
    (place / "space.yaml").write_text("name: mine\nlike: smoke\n")
    config = load(["space=space.yaml", "data=folder", "data.path=here"])
    row = trial(0, family="mine", parameters={})
    write_best(place / "best.yaml", build_problem(config).best(row))
    part = load(["space=space.yaml", "space.shared=true"])
    write_best(place / "part.yaml", build_problem(part).best(trial(0, family=part.space.label, parameters={})))
    (place / "space.yaml").unlink()
    of_part, _, _ = from_best(Path("part.yaml"), [])
    assert (of_part.space.label, list(of_part.space.build().parameters)) == ("mine.shared", ["optim.lr"])
    assert of_part.space.build() == part.space.build()
    again, _, best = from_best(Path("best.yaml"), ["data.path=there"])
    assert again.space.build() == config.space.build()
    with pytest.raises(InputError, match=r"data\.path is empty"):
        from_best(Path("best.yaml"), ["data.path="])
    assert again.data.path == best.experiment.data.path == "there"
    elsewhere = replace(best.experiment, data=replace(best.experiment.data, path="elsewhere"))
    assert elsewhere == best.experiment, "a place decides nothing"
    assert identity(elsewhere) == identity(best.experiment)
