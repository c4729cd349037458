"""`sweep ui NAME`: serve MLflow's page for a run directory's store, and Optuna's dashboard for its study, on
loopback."""

import socket
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from sweep.errors import InputError, WorkError
from sweep.records.run_directory import JOURNAL
from sweep.tracking.environment import mlflow_environment
from sweep.tracking.outbox import check_store, store_uri
from sweep.tracking.sqlite_store import move_artifacts

HOST = "127.0.0.1"


def ui(store: Path, sweep: Path, port: int, console: Console) -> None:
    """Serve until Ctrl-C. `store` is where mlflow.db is, `sweep` the run directory whose study is shown as well.

    Raises:
        InputError: there is nothing to show, the store is damaged, or a port is taken. WorkError: a server ended by
        itself.
    """
    if not (store / "mlflow.db").exists():
        raise InputError(f"There is no MLflow store {store / 'mlflow.db'}: run `sweep search {store.name}` first.")
    check_store(store_uri(store, None))
    with suppress(sqlite3.Error):  # locked, or read-only: it then shows artifacts where they were made
        move_artifacts(store / "mlflow.db")
    commands = {port: _mlflow(store, port)}
    if (sweep / JOURNAL).exists():
        dashboard = str(Path(sys.executable).with_name("optuna-dashboard"))
        commands[port + 1] = [dashboard, "--host", HOST, "--port", str(port + 1), str(sweep / JOURNAL)]
    for taken in (number for number in commands if _taken(number)):
        raise InputError(f"Port {taken} on {HOST} is taken: choose another by tracking.port=NUMBER.")
    console.print(f"MLflow: http://{HOST}:{port}   (Ctrl-C ends it)", highlight=False)
    if port + 1 in commands:
        console.print(f"Optuna: http://{HOST}:{port + 1}", highlight=False)
    _serve(list(commands.values()))


def _mlflow(store: Path, port: int) -> list[str]:
    uri = store_uri(store, None)
    options = ["--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-P", "-m", "mlflow", "server", *options]


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _serve(commands: list[list[str]]) -> None:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = mlflow_environment() | quiet
    servers = [subprocess.Popen(command, env=environment, start_new_session=True) for command in commands]
    try:
        code = servers[0].wait()
        raise WorkError(f"The MLflow server ended by itself with code {code}.")
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(timeout=30)
