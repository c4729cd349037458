"""A real `mlflow server` on this machine's own address, to be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HOST = "127.0.0.1"
PATIENCE = 120.0


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
        """Returns when it answers."""
        store = ["--backend-store-uri", f"sqlite:///{self.directory / 'server.db'}"]
        files = ["--artifacts-destination", str(self.directory / "files")]
        address = ["--host", HOST, "--port", str(self._port), "--workers", "1"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlflow", "server", *store, *files, *address],
                env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        for _ in range(int(PATIENCE / 0.2)):
            if self._answers():
                return
            assert self.alive, (self.directory / "server.log").read_text()
            time.sleep(0.2)
        raise AssertionError(f"the server does not answer within {PATIENCE:.0f} s")

    def kill(self) -> None:
        """With its workers, which are of its session."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
