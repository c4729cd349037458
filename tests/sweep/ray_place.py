"""Where tests run Ray: a short directory with its own home, scripts started in it, nodes that end with it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = "0123456789abcdef" * 4


@dataclass
class Place:
    """A short directory to be in, with its own home and Ray files, and the processes started from it."""

    path: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        ours = ("RAY_", "TUNE_", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        own = {"HOME": str(self.path), "RAY_TMPDIR": str(self.path), "RAY_raylet_start_wait_time_s": "120"}
        return kept | own | more

    def drive(self, body: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess:
        """Runs a script with what tests need of sweep imported; InputError is printed, as the command does."""
        script = self.path / "script.py"
        script.write_text(PREAMBLE + textwrap.indent(textwrap.dedent(body), "    ") + EPILOGUE)
        command = [*prefix, sys.executable, "-W", "error", str(script)]
        return subprocess.run(
            command,
            env=self.environment(**environment),
            cwd=self.path / "elsewhere",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start_node(self, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        """`ray start` in a process group of its own; returns when the node is up."""
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"]
        ports = ["--min-worker-port=0", "--max-worker-port=0"]
        log = self.path / f"node{len(self.processes)}.log"
        with log.open("w") as out:
            node = subprocess.Popen(
                [*prefix, *ray, *ports, *arguments],
                env=self.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN),
                cwd=self.path,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(node)
        for _ in range(900):
            if "--block" in log.read_text() or node.poll() is not None:
                break
            time.sleep(0.1)
        assert "--block" in log.read_text(), log.read_text()

    def end(self) -> None:
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
        shutil.rmtree(self.path, ignore_errors=True)


PREAMBLE = """
import json, os, sys
from pathlib import Path
from sweep.cluster.connect import connected
from sweep.cluster.resources import slots, trial_resources
from sweep.config.schema import ClusterConfig, ClusterKind, Resources
from sweep.errors import InputError, WorkError
here = Path.cwd()
try:
"""
EPILOGUE = """
except (InputError, WorkError) as error:
    print(f"{type(error).__name__}: {error}")
"""


@contextmanager
def short_place() -> Iterator[Place]:
    """A place below /tmp, because a socket's path has at most 107 characters; its processes end with it."""
    place = Place(Path(tempfile.mkdtemp(prefix="rc", dir="/tmp")))
    stale = place.path / "elsewhere" / "sweep"  # a checkout that nobody must import, in the working directory
    (stale / "records").mkdir(parents=True)
    for name in ("__init__", "records/__init__", "records/outcome"):
        (stale / f"{name}.py").touch()
    try:
        yield place
    finally:
        place.end()
