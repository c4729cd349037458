"""A command line run in this process, and what a refusal must be like."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
import torch

from sweep.__main__ import run

# Before the libraries are loaded that judge the rest: what is to be done, and that they are loaded.
ANNOUNCED = r"((plan|(search|study) \S+): spaces? .*\n)?((plan|\w+ \S+): loading PyTorch .*\n)?"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Answer]


def in_empty_directory(monkeypatch: pytest.MonkeyPatch, path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs command lines there, on a machine without CUDA and with a Ray that must not be started."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.chdir(path)
    monkeypatch.setattr(ray, "init", forbidden)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return lambda *argv: Answer(run(list(argv)), *capsys.readouterr())


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


def assert_refused(sweep: Command, argv: list[str], needles: tuple[str, ...]) -> None:
    """Code 2, one message with all of these in it, no traceback, nothing written, Ray not started.

    Before it there are at most the lines that say what was to be done.
    """
    before = tree(Path.cwd())
    answer = sweep(*argv)
    assert answer.code == 2
    assert re.fullmatch(ANNOUNCED, answer.out), answer.out
    assert answer.err.startswith("sweep: ")
    assert "Traceback" not in answer.err
    assert [needle for needle in needles if needle not in answer.err] == [], answer.err
    assert tree(Path.cwd()) == before
    assert not ray.is_initialized()
