"""What a sweep began with is what it must go on with, unless its user says otherwise."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from odenet.data.config import Portion
from search_spaces import SPACES, Choice
from sweep.errors import InputError
from sweep.records import provenance as module
from sweep.records.best import git_commit
from sweep.records.files import write_text
from sweep.records.provenance import (
    check_no_copy,
    check_origin,
    identity_text,
    name_begun_with,
    origin,
    settle,
    sweep_id,
)
from tests.sweep.pretended import data

NOW = origin(SPACES["smoke"], data()[Portion.train])


def test_it_is_the_space_the_data_the_code_and_the_versions_as_plain_data():
    assert NOW["space"] == SPACES["smoke"].to_dict()
    assert NOW["data"] == data()[Portion.train].hash != data()[Portion.trainval].hash
    assert set(NOW["code"]) == {"odenet", "search_spaces"}
    assert set(NOW["versions"]) == {"torch", "numpy", "optuna"}
    assert json.loads(json.dumps(NOW)) == NOW
    assert origin(SPACES["smoke"], data()[Portion.train]) == NOW


def test_the_code_is_known_by_the_names_and_contents_of_its_files(tmp_path, monkeypatch):
    package = tmp_path / "learner"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "LEARNED_BY", ("learner",))
    hashes = [origin(SPACES["smoke"], data()[Portion.train])["code"]["learner"]]
    for name, text in (("a.py", "x = 1"), ("a.py", "x = 2"), ("b.py", "x = 2")):
        (package / name).write_text(text)
        hashes.append(origin(SPACES["smoke"], data()[Portion.train])["code"]["learner"])
    (package / "notes.txt").write_text("no code")
    assert len(set(hashes)) == 4
    assert origin(SPACES["smoke"], data()[Portion.train])["code"]["learner"] == hashes[-1]


def test_the_commit_is_that_of_the_code_whatever_repository_the_environment_names(monkeypatch):
    before = git_commit.__wrapped__()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert git_commit.__wrapped__() == before


def changed(path: Path, **values: Any) -> Path:
    """An origin with other values, in the directory of sweep x."""
    file = path / "x" / "origin.json"
    file.parent.mkdir()
    file.write_text(json.dumps({**NOW, **values}))
    return file


def test_the_first_session_writes_it_and_the_next_agrees(tmp_path):
    file = tmp_path / "x" / "origin.json"
    check_origin(file, NOW, accept=False)
    before = file.read_text()
    check_origin(file, NOW, accept=False)
    assert json.loads(before) == {"id": sweep_id(file), "name": "x", "place": str(tmp_path / "x"), **NOW}
    assert file.read_text() == before


def test_a_sweep_keeps_its_id_whatever_its_directory_is_called_and_an_older_one_is_given_one(tmp_path):
    file = changed(tmp_path)  # as version 0.1.0 wrote it
    assert sweep_id(file) == ""
    check_origin(file, NOW, accept=False)
    known = sweep_id(file)
    assert len(known) == 32
    file.parent.rename(tmp_path / "y")
    check_origin(tmp_path / "y" / "origin.json", NOW, accept=True)
    assert sweep_id(tmp_path / "y" / "origin.json") == known
    other = tmp_path / "z" / "origin.json"
    check_origin(other, NOW, accept=False)
    assert sweep_id(other) != known


def test_a_renamed_sweep_keeps_the_name_that_it_was_begun_with_and_knows_where_it_is_now(tmp_path):
    file = tmp_path / "x" / "origin.json"
    write_text(file, identity_text("study/x", file.parent))  # before its space is known
    check_origin(file, NOW, accept=False, name="other")
    file.parent.rename(tmp_path / "y")
    moved = tmp_path / "y" / "origin.json"
    check_no_copy(moved.parent)
    settle(moved.parent)
    assert (name_begun_with(moved), json.loads(moved.read_text())["place"]) == ("study/x", str(tmp_path / "y"))
    check_origin(moved, NOW, accept=False)


def test_a_copy_also_of_a_sweep_within_a_study_is_told_from_what_was_moved_or_is_a_link(tmp_path):
    study = tmp_path / "study"
    check_origin(study / "member" / "origin.json", NOW, accept=False)
    (tmp_path / "link").symlink_to(study)
    shutil.copytree(study, tmp_path / "copy")
    check_no_copy(study)
    check_no_copy(tmp_path / "link")
    with pytest.raises(InputError, match=r"copy/member is a copy of .*study/member, which has the same id: it can be"):
        check_no_copy(tmp_path / "copy")
    study.rename(tmp_path / "elsewhere")
    check_no_copy(tmp_path / "copy")


def test_a_copy_of_what_was_moved_before_is_told_beside_it(tmp_path):
    file = tmp_path / "runs" / "x" / "origin.json"
    check_origin(file, NOW, accept=False)
    file.parent.rename(tmp_path / "runs" / "y")
    shutil.copytree(tmp_path / "runs" / "y", tmp_path / "runs" / "z")
    for name in ("y", "z"):
        with pytest.raises(InputError, match=r"is a copy of .*, which has the same id"):
            check_no_copy(tmp_path / "runs" / name)
    shutil.rmtree(tmp_path / "runs" / "z")
    check_no_copy(tmp_path / "runs" / "y")


OTHER = SPACES["smoke"].fix({"optim.lr": 0.1}).to_dict()
MORE = {"entries": [*NOW["space"]["entries"], {"key": "model.width", "parameter": Choice((1, 2)).to_dict()}]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"space": OTHER}, ("space optim.lr was {", "0.1", ", is {", "0.3")),
        ({"space": MORE}, ("space model.width was {", ", is absent")),
        ({"space": {"entries": []}}, ("space optim.lr was absent, is {", "space model.scheme was absent")),
        ({"data": "c0ffee"}, (f"the data's hash was c0ffee, is {NOW['data']}",)),
        ({"code": {"odenet": "old", "search_spaces": NOW["code"]["search_spaces"]}}, ("code of odenet was old, is ",)),
        ({"versions": {**NOW["versions"], "torch": "1.0"}}, ("versions of torch was 1.0, is ",)),
        ({"versions": {}}, ("versions of torch was absent", "versions of numpy was absent")),
        ({"code": None}, ("code of odenet was absent",)),
    ],
)
def test_what_has_changed_is_refused_by_name_and_accepted_when_asked_for(tmp_path, values, said):
    file = changed(tmp_path, **values)
    before = file.read_text()
    with pytest.raises(InputError) as error:
        check_origin(file, NOW, accept=False)
    text = str(error.value)
    assert text.startswith("x began with something else: ")
    assert text.endswith("or go on with search.accept_changes=true, and say so where you report it.")
    assert [part for part in said if part not in text] == []
    assert file.read_text() == before
    check_origin(file, NOW, accept=True)
    check_origin(file, NOW, accept=False)


@pytest.mark.parametrize("text", ["", "[1]", '"x"', "{", b"\xff\xfe"])
def test_a_damaged_origin_is_refused_and_written_anew_when_asked_for(tmp_path, text):
    file = changed(tmp_path)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"origin\.json is damaged: .*search\.accept_changes=true writes it anew"):
        check_origin(file, NOW, accept=False)
    check_origin(file, NOW, accept=True)
    assert json.loads(file.read_text()) == {"id": sweep_id(file), "name": "x", "place": str(file.parent), **NOW}
