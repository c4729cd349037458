"""`sweep ui NAME`: serve MLflow's page for a run directory's store, and Optuna's dashboard for its study, on
loopback."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NoReturn

from rich.console import Console

from sweep.config.schema import TrackingConfig
from sweep.errors import InputError, WorkError
from sweep.records.run_directory import JOURNAL
from sweep.tracking.environment import mlflow_environment
from sweep.tracking.lines import experiment_of
from sweep.tracking.outbox import check_store, store_uri
from sweep.tracking.sqlite_store import move_artifacts

HOST = "127.0.0.1"
TRAINING_VIEW = "workflowType=machine_learning"  # else MLflow opens in its view of GenAI, whatever an experiment is
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
START_SECONDS = 180.0  # that a server may take on a busy machine
END_SECONDS = 5.0  # between asking a server's processes to end and ending them
LOG_BYTES = 10_000  # of a server's last words


def ui(store: Path, sweep: Path, tracking: TrackingConfig, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM, and end every process of the servers then. `store` is where mlflow.db is, `sweep`
    the run directory whose study is shown as well. Of a sweep that an MLflow server of its own is told of, the page
    there is named, and the study alone is served.

    Raises:
        InputError: there is nothing to show, the store is damaged, or a port is taken. WorkError: a server ended by
        itself.
    """
    port, commands = tracking.port, dict[int, list[str]]()
    if tracking.uri is None:
        _check_local(store)
        commands[port] = _mlflow(store, port)
    if (sweep / JOURNAL).exists():
        dashboard = str(Path(sys.executable).with_name("optuna-dashboard"))
        commands[port + 1] = [dashboard, "--host", HOST, "--port", str(port + 1), str(sweep / JOURNAL)]
    for taken in (number for number in commands if _answers(number)):
        raise InputError(f"Port {taken} on {HOST} is taken: choose another by tracking.port=NUMBER.")
    if not commands:
        console.print(f"MLflow {_page_of_server(store, tracking.uri or '')}", highlight=False)
        return
    console.print("Starting ...", end=" ", highlight=False)
    with TemporaryFile() as log, _serving(list(commands.values()), log) as servers:
        _wait_for(servers, commands, log)
        optuna = f", Optuna http://{HOST}:{port + 1}" if port + 1 in commands else ""
        if tracking.uri is None:
            page = f"http://{HOST}:{port}/#/experiments{_experiment(store)}?{TRAINING_VIEW}"
        else:
            page = _page_of_server(store, tracking.uri)
        console.print(f"MLflow {page}{optuna}", highlight=False)
        servers[0].wait()
        _say_ended(servers[0], log)


def _check_local(store: Path) -> None:
    """Check the sqlite file, and let it find its artifacts where they are now. InputError: as `ui`."""
    if not (store / "mlflow.db").exists():
        raise InputError(f"There is no MLflow store {store / 'mlflow.db'}: run `sweep search {store.name}` first.")
    check_store(store_uri(store, None))
    with suppress(sqlite3.Error):  # locked, or read-only: it then shows artifacts where they were made
        move_artifacts(store / "mlflow.db")


def _page_of_server(store: Path, uri: str) -> str:
    """Return the address of the directory's experiment on a server; of all experiments where it does not say."""
    from sweep.tracking.client import Records

    try:
        found = Records(uri, experiment_of(store)).experiment_id()
    except WorkError:
        found = None
    return f"{uri.rstrip('/')}/#/experiments{'' if found is None else f'/{found}'}?{TRAINING_VIEW}"


def _experiment(store: Path) -> str:
    """Return the path of the page of the directory's experiment, or of the newest; empty where there is none."""
    query = "SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active' ORDER BY name = ? DESC, 1 DESC"
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{(store / 'mlflow.db').as_uri()}?mode=ro", uri=True)) as db:
        found = db.execute(query, (experiment_of(store),)).fetchone()
        return f"/{found[0]}" if found else ""
    return ""


def _mlflow(store: Path, port: int) -> list[str]:
    uri = store_uri(store, None)
    options = ["--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-P", "-m", "mlflow", "server", *options, "--uvicorn-opts", "--log-level=warning"]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@contextmanager
def _serving(commands: list[list[str]], log: IO[bytes]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run servers, each with all that it starts in a process group of its own, which ends with the block: also where
    that is left by a signal to end, because the terminal was closed, or this process was killed."""
    environment = mlflow_environment() | QUIET
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    servers: list[subprocess.Popen[bytes]] = []
    reaper: subprocess.Popen[bytes] | None = None
    try:
        for command in commands:
            servers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
        reaper = _reaper(servers)
        yield servers
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # nothing is left behind because somebody asked twice
        for server in servers:
            _end(server)
        if reaper:
            reaper.kill()
            reaper.communicate()
        for number, handler in before.items():
            signal.signal(number, handler)


# Waits until its standard input ends, with the command that holds the other end, however that dies.
_REAPER = """
import os, sys
sys.stdin.read()
for group in sys.argv[1:]:
    try:
        os.killpg(int(group), 9)
    except (ProcessLookupError, PermissionError):
        pass
"""


def _reaper(servers: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start a process that ends the servers when this one was killed, which would go on with their ports."""
    command = [sys.executable, "-I", "-S", "-c", _REAPER, *(str(server.pid) for server in servers)]
    loader = {name: value for name, value in os.environ.items() if name.startswith(("LD_", "DYLD_"))}  # and no secret
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=loader, start_new_session=True)


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server's process group, which may outlive the server itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):  # all are gone; macOS says so of zombies
            os.killpg(server.pid, number)
        deadline = time.monotonic() + END_SECONDS
        while _is_left(server) and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_left(server: subprocess.Popen[bytes]) -> bool:
    server.poll()  # else it stays in its group as a zombie
    try:
        os.killpg(server.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _wait_for(servers: list[subprocess.Popen[bytes]], ports: dict[int, list[str]], log: IO[bytes]) -> None:
    """Wait until all ports answer. WorkError: a server ended, or did not answer in time."""
    deadline = time.monotonic() + START_SECONDS
    while not all(map(_answers, ports)):
        for server in servers:
            if server.poll() is not None:
                _say_ended(server, log)
        if time.monotonic() > deadline:
            raise WorkError(f"The servers do not answer after {START_SECONDS:.0f} s.")
        time.sleep(0.2)


def _say_ended(server: subprocess.Popen[bytes], log: IO[bytes]) -> NoReturn:
    log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
    said = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    words = f": {said[-1]}" if said else ""
    raise WorkError(f"A server ended by itself with code {server.returncode}{words}.")
