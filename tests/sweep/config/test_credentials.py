"""Credentials of the MLflow server: taken out of its address wherever it comes in, kept for the client, never shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.__main__ import run
from sweep.config.compose import load
from sweep.config.credentials import PASSWORD, USER, hidden, take_credentials, take_from_words
from sweep.config.schema import TrackingConfig, save
from sweep.errors import InputError

SECRET = "s3cr3t/#@"
ADDRESS = "http://me:s3cr3t%2F%23%40@mlflow.example:5000/base"


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (USER, PASSWORD):
        monkeypatch.setenv(name, "")  # so that what is set inside is taken back
        monkeypatch.delenv(name)


def test_user_and_password_go_from_the_address_into_the_environment():
    assert take_credentials(ADDRESS) == "http://mlflow.example:5000/base"
    assert (os.environ[USER], os.environ[PASSWORD]) == ("me", SECRET)


@pytest.mark.parametrize("address", ["http://h:5000", "https://[::1]:5000/a@b", "http://h/x?y=u:p@h", "sqlite:///a:b"])
def test_an_address_without_credentials_stays_as_it_is(address):
    assert take_credentials(address) == address
    assert PASSWORD not in os.environ


@pytest.mark.parametrize("word", ["tracking.uri={}", "+tracking.uri={}", "tracking.uri='{}'", "tracking={{uri: '{}'}}"])
def test_they_are_taken_from_the_words_of_a_command_line(word):
    words = ["search", "x", word.format(ADDRESS)]
    assert take_from_words(words) == ["search", "x", word.format("http://mlflow.example:5000/base")]
    assert os.environ[PASSWORD] == SECRET


def test_no_configuration_holds_them_wherever_they_come_from(tmp_path, monkeypatch):
    """From a notebook, from the environment by an interpolation, from a config.yaml of before."""
    monkeypatch.setenv("THE_ADDRESS", ADDRESS)
    first = load([f"tracking.uri='{ADDRESS}'"])
    second = load(["tracking.uri=${oc.env:THE_ADDRESS}"])
    saved = tmp_path / "config.yaml"
    saved.write_text(save(first).replace("http://mlflow", "http://me:old@mlflow"))
    for config in (first, second, load([], saved)):
        assert config.tracking.uri == "http://mlflow.example:5000/base"
    assert os.environ[PASSWORD] == SECRET, "those of an old file replace no others"


@pytest.mark.parametrize(
    "address",
    [
        "http://s3cr3t@h:5000",
        "http://:s3cr3t@h:5000",
        "http://me:s3cr/3t@h",
        "http://h/?token=s3cr3t",
        "http://h/#s3cr3t",
        "http://me:s3cr3t@h:notaport",
        "http://me:s3cr3t@[::1",
        "me:s3cr3t@h:5000",
        "http:/me:s3cr3t@h:5000",
    ],
)
def test_what_cannot_be_used_is_refused_without_being_shown(address):
    with pytest.raises(ValueError, match=r"tracking\.uri=.* must be the address of an MLflow server") as refused:
        TrackingConfig(uri=address)
    assert "MLFLOW_TRACKING_PASSWORD" in str(refused.value)
    with pytest.raises(InputError) as refused_too:
        load([f"tracking.uri='{address}'"])
    for said in (str(refused.value), str(refused_too.value)):
        assert "s3cr" not in said
        assert "3t" not in said


def test_the_command_begins_anew_without_them_in_its_arguments(tmp_path: Path):
    script = "import sys; from sweep import __main__ as m; m.run = lambda _: print(sys.orig_argv) or 0; m.main()"
    command = [sys.executable, "-c", script, "doctor", f"tracking.uri={ADDRESS}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "s3cr3t" not in done.stdout
    assert "tracking.uri=http://mlflow.example:5000/base" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "tracking.uri=http://h/?token=s3cr3t"],  # Hydra cannot read it
        ["plan", "trackin.uri=http://me:s3cr3t@h"],
        ["plan", "tracking.port=http://me:s3cr3t@h"],
        ["plan", "runtime.runs_dir=s3://me:s3cr3t@h/bucket"],
        ["plan", "data=folder", "data.path=https://me:s3cr3t@h/images"],
        ["plan", "--config-dir", ".", "--config-name", "mine", "--cfg", "job"],
    ],
)
def test_no_message_and_no_printed_configuration_shows_them(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(f"defaults: [config, _self_]\ntracking: {{uri: '{ADDRESS}'}}\n")
    assert run(words) == (0 if "job" in words else 2)
    said = "".join(capsys.readouterr())
    assert "s3cr3t" not in said
    assert "..." in said
    assert not list(tmp_path.rglob("s3:*"))


def test_what_is_no_credential_of_a_message_is_shown():
    for text in ("sqlite:////home/me@corp/mlflow.db", "http://h:5000/base", "a@b: key=3", "https://[::1]:5000"):
        assert hidden(text) == text
