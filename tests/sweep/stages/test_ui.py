"""`sweep ui` as its user has it: one line, the pages on loopback, and nothing left behind when it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.__main__ import run
from sweep.config.schema import TrackingConfig, save
from sweep.config.search_config import Objective
from sweep.records.run_directory import JOURNAL
from sweep.tuning.optuna_study import open_study
from tests.sweep.sweep_files import trial, write_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_about(directory: Path) -> list[str]:
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(directory) in line]


def page(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        content: bytes = answer.read()
    return content


def test_the_pages_are_served_with_one_line_and_end_with_the_command_and_all_their_processes(tmp_path):
    directory, port = tmp_path / "runs" / "x", free_port()
    directory.mkdir(parents=True)
    (directory / "mlflow.db").touch()
    open_study(directory / JOURNAL, "x", [Objective.accuracy])
    command = [sys.executable, "-m", "sweep", "ui", "x", f"tracking.port={port}"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    page_of_training = f"http://127.0.0.1:{port}/#/experiments/0?workflowType=machine_learning"
    assert line == f"Starting ... MLflow {page_of_training}, Optuna http://127.0.0.1:{port + 1}\n"
    assert b"MLflow" in page(port) and b"Optuna" in page(port + 1)
    assert len(processes_about(directory)) >= 3, "two servers, one of them with a process of its own"
    os.kill(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "", "nothing is said of requests"
    assert process.returncode == 128 + signal.SIGTERM
    assert processes_about(directory) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_that_ends_by_itself_is_said_with_its_last_words(tmp_path, monkeypatch):
    from rich.console import Console

    from sweep.errors import WorkError
    from sweep.stages import ui as stage

    (tmp_path / "mlflow.db").touch()
    broken = [sys.executable, "-c", "import sys; sys.exit('no such table')"]
    monkeypatch.setattr(stage, "_mlflow", lambda store, port: broken)
    before = signal.getsignal(signal.SIGTERM)
    started = time.monotonic()
    with pytest.raises(WorkError, match=r"A server ended by itself with code 1: no such table\."):
        stage.ui(tmp_path, tmp_path, TrackingConfig(port=free_port()), Console())
    assert time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGTERM) is before


KILLED = """
import os, signal, sys
from tempfile import TemporaryFile
from sweep.stages.ui import _serving

server = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(100)', sys.argv[1]])"
with TemporaryFile() as log, _serving([[sys.executable, "-c", server, sys.argv[1]]], log):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_servers_end_with_a_command_that_was_killed(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while processes_about(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_about(tmp_path) == []


def test_of_a_sweep_on_a_server_its_page_there_is_named_and_no_store_is_looked_for_here(tmp_path, monkeypatch, capsys):
    config = write_sweep(tmp_path / "runs", [trial(0)])
    tracked = replace(config, tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    (tmp_path / "runs" / "x" / "config.yaml").write_text(save(tracked))
    monkeypatch.chdir(tmp_path)
    assert run(["ui", "x"]) == 0
    assert capsys.readouterr().out == "MLflow http://127.0.0.1:9/#/experiments?workflowType=machine_learning\n"
