"""A sweep submitted to a real head, followed, stopped and resumed from where nothing of it is; and what is refused."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sweep.__main__ import run
from sweep.cli import run_jobs
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows
from sweep.tracking.state import lag
from tests.sweep.ray_place import TOKEN, Place, short_place
from tests.sweep.sweep_command import Answer, assert_refused, in_empty_directory

SMALL = "space=mine.yaml search.trials=2 model.width=4 training.epochs=30 runtime.device=cpu"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def place() -> Iterator[Place]:
    with short_place() as place:
        yield place


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_submitted_sweep_is_followed_stopped_and_resumed_from_a_machine_without_its_files(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port, server, shared = free_port(), free_port(), place.path / "shared"
    shared.mkdir()
    place.start_node(
        "--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--num-cpus=2", "--num-gpus=0",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={server}",
        f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}",
        f"--runtime-env-agent-port={free_port()}", f"--metrics-export-port={free_port()}",
    )  # fmt: skip
    (laptop := place.path / "laptop").mkdir()
    monkeypatch.chdir(laptop)
    monkeypatch.setenv("HOME", str(laptop))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    there = f"cluster.job_server=http://127.0.0.1:{server}"

    def sweep(line: str) -> Answer:
        return Answer(run([*line.split(), there]), *capsys.readouterr())

    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    refused = sweep("status digits")
    assert refused.code == 2 and "The job server refuses this process's token" in refused.err, refused
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)

    (laptop / "mine.yaml").write_text("like: smoke\n")
    begun = sweep(f"submit search digits {SMALL} runtime.runs_dir={shared}")
    assert begun.code == 0, begun
    assert "Ray runs: 2 " in begun.out and "It goes on there as job digits-search-" in begun.out
    deadline = time.monotonic() + 120
    while not SweepFiles(shared / "digits").curves.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    stopped = sweep("stop digits")
    assert stopped.code == 0, stopped
    assert "trials were cut short and wait at a checkpoint" in stopped.out, stopped
    assert lag(shared / "digits").lines == 0, "MLflow was told how the trials ended"
    rows = read_rows(SweepFiles(shared / "digits").trials, TrialRow)
    assert {row.outcome for row in rows} == {Outcome.interrupted}
    again = sweep(f"submit search digits {SMALL} runtime.runs_dir={shared}")
    assert again.code == 2 and "digits exists already" in again.out, again
    nothing = sweep("stop digits")
    assert nothing.code == 2 and "Nothing is at work on digits: search digits: failed with code 2" in nothing.err

    shown = sweep("status digits")
    assert shown.code == 0 and "2 interrupted" in shown.out, shown
    assert sweep("status nope").code == 2
    assert sweep("resume digits").code == 0
    followed = sweep("logs digits --follow")
    assert "resume digits: succeeded with code 0" in followed.out, followed
    listed = json.loads(sweep("status digits --json").out)
    assert [trial["outcome"] for trial in listed["trials"]] == ["done", "done"]
    assert [path.name for path in laptop.iterdir()] == ["mine.yaml"], "nothing is left where it was submitted from"


class OpenServer(BaseHTTPRequestHandler):
    """A job server that takes anybody."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ray_version": "2.60.0"}' if self.path == "/api/version" else b"[]")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("line", "needles"),
    [
        ("submit search x", ("needs the address of the cluster's job server: cluster.job_server=http://HEAD:8265",)),
        ("submit plan x cluster.job_server=http://h:1", ("`sweep submit plan` is not possible", "search, study")),
        ("submit sarch x", ("There is no stage 'sarch'; did you mean search?",)),
        ("submit search x optim.lrr=3 cluster.job_server=http://h:1", ("optim.lrr is no key",)),
        ("submit search x modules=[json.tool] cluster.job_server=http://h:1", ("defines neither NETWORKS nor SPACES",)),
        ("submit search x cluster.job_server=h:8265", ("cluster.job_server=h:8265: must be the address",)),
        ("search x cluster.job_server=http://h:1", ("is for `sweep submit search NAME`", "not for `sweep search`")),
        ("logs x", ("`sweep logs NAME` needs the address",)),
        ("stop x cluster.address=auto", ("would have no effect on `sweep stop`",)),
        ("submit final best.yaml cluster.job_server=http://h:1", ("copy it to the head",)),
        ("stop x cluster.job_server=http://127.0.0.1:1", ("No job server answers at", "ssh -N -L")),
    ],
)
def test_what_cannot_be_submitted_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    line: str, needles: tuple[str, ...],
) -> None:  # fmt: skip
    assert_refused(in_empty_directory(monkeypatch, tmp_path, capsys), line.split(), needles)


def test_a_remote_server_that_takes_anybody_is_refused_unless_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sweep.cluster.job_server.is_loopback", lambda address: False)
    with HTTPServer(("127.0.0.1", 0), OpenServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"cluster.job_server=http://127.0.0.1:{server.server_port}"
        assert run(["stop", "x", there]) == 2
        assert "takes anybody who reaches it" in capsys.readouterr().err
        run(["stop", "x", there, "cluster.unauthenticated=true"])
        assert "The job server knows no job for x; it knows jobs for: none" in capsys.readouterr().err
        server.shutdown()


def test_the_users_own_files_go_along_and_are_named_as_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_for_jobs").mkdir()
    (tmp_path / "mine_for_jobs" / "__init__.py").touch()
    words = [
        "--config-dir=conf", "--config-name=big", "space=spaces/small.yaml", "search.enqueue=[a/t.csv,b/t.csv]",
        "modules=[mine_for_jobs.nets]", "optim.lr=0.1",
    ]  # fmt: skip
    there, files = run_jobs._sent(words)
    assert there == [
        "--config-dir=own/conf", "--config-name=big", "space=own/small.yaml",
        "search.enqueue=[own/0-t.csv,own/1-t.csv]", "modules=[mine_for_jobs.nets]", "optim.lr=0.1",
    ]  # fmt: skip
    assert files == {
        "own/conf": Path("conf"), "own/small.yaml": Path("spaces/small.yaml"), "own/0-t.csv": Path("a/t.csv"),
        "own/1-t.csv": Path("b/t.csv"), "mine_for_jobs": tmp_path / "mine_for_jobs",
    }  # fmt: skip


def test_a_relative_directory_of_results_has_no_place_on_a_cluster() -> None:
    from sweep.cli.command_line import Command
    from sweep.config.compose import load
    from sweep.errors import InputError

    with pytest.raises(InputError, match=r"runs_dir=runs is relative, .* such as runtime\.runs_dir=/shared/runs"):
        run_jobs._runs_dir(Command("search", ["x"], [], []), load([]))
