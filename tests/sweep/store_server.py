"""A real `mlflow server` on this machine's own address, to be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

HOST = "127.0.0.1"
PATIENCE = 120.0
PORTS = 3  # that are tried


class StoreServer:
    """A server whose database and files are in `directory`; it keeps its port."""

    def __init__(self, directory: Path) -> None:
        self.directory, self._port = directory, free_port()
        self.uri = f"http://{HOST}:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it answers. A port that another process has taken meanwhile is given up for another one."""
        for _ in range(PORTS):
            if self._starts():
                return
            self._port = free_port()
            self.uri = f"http://{HOST}:{self._port}"
        raise AssertionError(f"the server does not answer: {(self.directory / 'server.log').read_text()}")

    def _starts(self) -> bool:
        store = ["--backend-store-uri", f"sqlite:///{self.directory / 'server.db'}"]
        files = ["--artifacts-destination", str(self.directory / "files")]
        address = ["--host", HOST, "--port", str(self._port), "--workers", "1"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlflow", "server", *store, *files, *address],
                env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while self.alive and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.2)
        self.kill()
        return False

    def kill(self) -> None:
        """With its workers, which are of its session."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (OSError, HTTPException):  # the latter from another kind of server
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
