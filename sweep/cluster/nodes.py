"""What each node of a joined cluster is like, as `sweep doctor` asks it: versions, GPUs, token, storage, clock."""

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sweep.interpreter import DISTRIBUTION, installed_version

ANSWER_SECONDS = 120  # for a node to start a process with the shipped code, and to load PyTorch in another
MPS_PIPES = "/tmp/nvidia-mps"  # CUDA's own choice
DRIVER = "/proc/driver/nvidia/version"
MOST_SKEW = 2.0  # seconds
FEW_GIB = 5.0  # free where results go
VERSIONS = ("python", "ray", "torch", "sweep")
_GPUS = "import json, torch; print(json.dumps([*map(torch.cuda.get_device_name, range(torch.cuda.device_count()))]))"


@dataclass(frozen=True, slots=True)
class NodeQuestion:
    """A question to a node. `probe`: a file in the directory of results, and `content` what is in it."""

    probe: str
    content: str
    data_dir: str
    tracking: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A node's answer about itself. `obstacle`: why it says nothing."""

    host: str
    obstacle: str = ""
    python: str = ""
    ray: str = ""
    torch: str = ""
    sweep: str = ""  # installed there; workers get the code that is shipped
    ray_gpus: int = 0
    gpus: tuple[str, ...] = ()  # as torch names them
    driver: str = ""
    mps: bool = False
    token: str = ""  # the mode of its file; environment; open
    storage: str = ""  # why the directory of results cannot be used; empty where it can
    free_gib: float = 0.0
    data: bool | None = None  # its directory is there; None: the data set needs none
    tracking: bool | None = None  # None: there is no server
    skew: float = 0.0  # seconds that its clock is ahead


def node_reports(question: NodeQuestion) -> list[NodeReport]:
    """Ask every node that is alive, at once."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = [_on(node["NodeID"], report, question) for node in alive]
    ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS, fetch_local=False)
    found = []
    for node, answer in zip(alive, asked, strict=True):
        address = f"{node['NodeManagerHostname']} {node['NodeManagerAddress']}"
        try:
            said: NodeReport = ray.get(answer, timeout=1)
            gpus = int(node["Resources"].get("GPU", 0))
            found.append(replace(said, host=address, ray_gpus=gpus, skew=_skew(node["NodeID"])))
        except ray.exceptions.GetTimeoutError:
            found.append(NodeReport(host=address, obstacle=f"no answer within {ANSWER_SECONDS} s"))
        except ray.exceptions.RayError as error:
            found.append(NodeReport(host=address, obstacle=str(error).strip().splitlines()[0]))
    return found


def _on(node: str, task: Any, *arguments: Any) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(task).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(*arguments)


def _skew(node: str) -> float:
    """Measure how far a node's clock is ahead, by the fastest of three answers."""
    import ray

    answers = []
    for _ in range(3):
        begun = time.time()
        there = ray.get(_on(node, _clock), timeout=ANSWER_SECONDS)
        took = time.time() - begun
        answers.append((took, there - begun - took / 2))
    return min(answers)[1]


# --- on the node ------------------------------------------------------------------------------------------------------


def _clock() -> float:
    return time.time()


def report(question: NodeQuestion) -> NodeReport:
    """Say what this machine is like."""
    probe, address = Path(question.probe), urlsplit(question.tracking)
    port = address.port or (443 if address.scheme == "https" else 80)
    return NodeReport(
        host=socket.gethostname(),
        python=platform.python_version(),
        ray=installed_version("ray"),
        torch=installed_version("torch"),
        sweep=installed_version(DISTRIBUTION),
        gpus=tuple(_gpus()),
        driver=_driver(),
        mps=mps_runs(),
        token=_token(),
        storage=_obstacle(probe, question.content),
        free_gib=shutil.disk_usage(probe.parent).free / 2**30 if probe.parent.exists() else 0.0,
        data=Path(question.data_dir).exists() if question.data_dir else None,
        tracking=_reaches(address.hostname, port) if address.hostname else None,
    )


def _gpus() -> list[str]:
    """Ask torch in a process of its own: Ray hides the GPUs from a task that has none."""
    seen = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(
            [sys.executable, "-c", _GPUS], env=seen, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True
        )
        names: list[str] = json.loads(done.stdout)
        return names
    return []


def _driver() -> str:
    with suppress(OSError):
        found = re.search(r"\s(\d+\.\d[\d.]*)\s", Path(DRIVER).read_text())
        return found[1] if found else ""
    return ""


def mps_place() -> Path:
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", MPS_PIPES))


def mps_runs() -> bool:
    """Tell whether a daemon of CUDA MPS lives where this process would look for it: one that was killed leaves its
    files."""
    try:
        found = int((mps_place() / "nvidia-cuda-mps-control.pid").read_text())
        if found <= 0:
            return False  # which would ask a whole group of processes
        os.kill(found, 0)
    except PermissionError:
        return True  # another user's
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _token() -> str:
    """Say how this node has the cluster's token."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return "open"
    if "RAY_AUTH_TOKEN" in os.environ:
        return "environment"
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    return f"{file.stat().st_mode & 0o777:04o}" if file.exists() else "absent"


def _obstacle(probe: Path, content: str) -> str:
    """Find what keeps this node from using the directory of results; empty where nothing does."""
    try:
        if probe.read_text() != content:
            return "another directory of that name"
        with tempfile.TemporaryFile(dir=probe.parent) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _reaches(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False


# --- what is wrong ----------------------------------------------------------------------------------------------------


def complaints(node: NodeReport, here: NodeReport) -> Iterator[tuple[bool, str]]:
    """Say what would stop a sweep there (True), or trouble it, each with what to do. `here`: this machine."""
    if node.obstacle:
        yield True, f"it cannot be used: {node.obstacle}; look at its raylet's log, or end Ray there"
        return
    for name in VERSIONS[:3]:
        if (there := getattr(node, name)) != (ours := getattr(here, name)):
            yield True, f"{name} {there}, here is {ours}: install by `uv pip install -r requirements.lock`"
    if node.storage:
        yield True, f"the directory of results: {node.storage}; mount it there at the same path"
    if node.ray_gpus > len(node.gpus):
        yield True, f"Ray counts {node.ray_gpus} GPUs, torch sees {len(node.gpus)}: look at the driver ({DRIVER})"
    if node.token == "open":
        yield False, "it takes anybody: start Ray there with RAY_AUTH_MODE=token"
    elif node.token.isdecimal() and int(node.token, 8) & 0o077:
        yield False, f"others can read its token (mode {node.token}): chmod 600"
    if not node.storage and node.free_gib < FEW_GIB:
        yield False, f"{node.free_gib:.1f} GiB are free where results go: make space"
    if abs(node.skew) > MOST_SKEW:
        yield False, f"its clock is {node.skew:+.1f} s off: times of epochs are compared, synchronize it"
