"""`sweep doctor`: find what of this machine, or of the cluster, would stop a sweep. Nothing that it writes stays."""

import importlib
import os
import platform
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console

from odenet.data.sets import load_test
from sweep.cluster.connect import connected
from sweep.cluster.resources import slots, trial_resources
from sweep.cluster.session_directory import LONGEST_TEMPORARY
from sweep.config.credentials import authorization
from sweep.config.schema import AUTO, AppConfig, ClusterKind
from sweep.errors import InputError, WorkError
from sweep.interpreter import DISTRIBUTION
from sweep.records.files import storing

FEW_BYTES = 5 * 2**30  # free where results go: a checkpoint has megabytes, an MLflow store of a study hundreds of them
ANSWER_SECONDS = 5
MPS_PIPES = "/tmp/nvidia-mps"  # CUDA's own choice
ABSENT = "absent"


class Level(Enum):
    """The result of a check."""

    ok = "ok"
    warning = "warning"  # sweeps run, but perhaps not as wanted
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check; the text of a warning or failure ends with what to do."""

    level: Level
    text: str


def doctor(config: AppConfig, console: Console) -> None:
    """Print a line for every finding.

    Raises:
        WorkError: a check failed.
    """
    failed = 0
    for name, check in CHECKS.items():
        for finding in check(config):
            console.print(f"{finding.level.value:<8} {name:<9} {finding.text}", highlight=False)
            failed += finding.level is Level.failed
    if failed:
        raise WorkError(f"{failed} check(s) failed; a sweep with this configuration would, too.")
    console.print("Nothing failed: a sweep with this configuration can run.", highlight=False)


def _ok(text: str) -> Finding:
    return Finding(Level.ok, text)


def _failed(text: str) -> Finding:
    return Finding(Level.failed, text)


def _packages(_: AppConfig) -> Iterator[Finding]:
    """Compare installed versions with what the distribution asks for."""
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        wanted = []
        yield Finding(
            Level.warning,
            "this is a checkout that is not installed, nothing here says which versions it needs: `make install`, or "
            "`uv pip install --no-deps -e .` beside the packages of requirements.lock",
        )
    wrong = []
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _installed(requirement.name)
        if found == ABSENT or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} where {requirement.specifier or 'any version'} is needed")
    if wrong:
        yield _failed(f"{'; '.join(wrong)}: install by `uv pip install -r requirements.lock`")
    names = ("torch", "ray", "optuna", "mlflow", "hydra-core")
    yield _ok(f"Python {platform.python_version()}, {', '.join(f'{name} {_installed(name)}' for name in names)}")
    try:
        importlib.import_module("torchvision")  # beside a torch of another build this fails
    except (ImportError, RuntimeError) as error:
        yield _failed(f"torchvision cannot be imported beside this torch: {error}. Take both from the lock file")


def _installed(name: str) -> str:
    """Return the version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT


def _machine(config: AppConfig) -> Iterator[Finding]:
    import torch

    cpus = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield _ok(f"{cpus} CPUs, {memory / 2**30:.1f} GiB of memory")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield _ok(f"torch sees {len(gpus)} GPUs{': ' + ', '.join(gpus) if gpus else ''}")
    yield from _mps(config, bool(gpus))
    asked = config.runtime.resources.cpus
    if asked > cpus and config.cluster.kind is ClusterKind.local:
        yield _failed(f"runtime.resources.cpus={asked}, here are {cpus}: lower it")
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and (wrong := _wrong_threads(threads, asked)):
        yield Finding(Level.warning, f"OMP_NUM_THREADS={threads}, {wrong}, unset it")


def _wrong_threads(threads: str, cpus: int) -> str:
    """Say what is wrong with OMP_NUM_THREADS, which is a number, or one for each level of nesting; empty if nothing."""
    levels = [level.strip() for level in threads.split(",")]
    if not all(level.isdecimal() and int(level) for level in levels):
        return "which is no number of threads: libraries take what they like"
    if int(levels[0]) > cpus:
        return f"a trial has {cpus} CPUs: oversubscription is slow"
    return ""


def _mps(config: AppConfig, gpus: bool) -> Iterator[Finding]:
    """Find whether a daemon of CUDA MPS lives where this process would look for it: one that was killed leaves its
    files. Nothing is said where there is neither a GPU nor a trace of a daemon."""
    place = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", MPS_PIPES))
    if not gpus and not place.exists():
        return
    if _lives(place / "nvidia-cuda-mps-control.pid"):
        yield _ok(f"the CUDA MPS daemon runs ({place}): trials that share a GPU compute at the same time")
        return
    asked = config.runtime.resources.gpus
    shares = asked == AUTO or 0 < float(asked or 0) < 1
    yield Finding(
        Level.warning if shares else Level.ok,
        f"no CUDA MPS daemon runs ({place}): trials that share a GPU take turns. To start one, as the user of the "
        "trials and before them: `nvidia-cuda-mps-control -d`; to end it: `echo quit | nvidia-cuda-mps-control`",
    )


def _lives(number: Path) -> bool:
    """Tell whether the process whose number is in the file is alive."""
    try:
        found = int(number.read_text())
        if found <= 0:
            return False  # which would ask a whole group of processes
        os.kill(found, 0)
    except PermissionError:
        return True  # another user's
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _data(config: AppConfig) -> Iterator[Finding]:
    try:
        test = load_test(config.data, config.runtime.data_dir)
    except ValueError as error:
        yield _failed(str(error))
        return
    yield _ok(f"{config.data.name}: {len(test)} test images, whole")


def _results(config: AppConfig) -> Iterator[Finding]:
    """Find whether results can be written, and how much of them."""
    directory = Path(config.runtime.runs_dir).resolve()
    existing = next(parent for parent in [directory, *directory.parents] if parent.exists())
    try:
        with storing(existing, 1), tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
    except WorkError as error:
        yield _failed(f"{error} Or choose another runtime.runs_dir")
        return
    free = shutil.disk_usage(existing).free
    text = f"{directory} can be written, {free / 2**30:.1f} GiB are free"
    if free < FEW_BYTES:
        yield Finding(Level.warning, f"{text}: a study may need more, make space")
    else:
        yield _ok(text)


def _tracking(config: AppConfig) -> Iterator[Finding]:
    uri = config.tracking.uri
    if uri is None:
        yield _ok("MLflow's store is a sqlite file in the run directory")
        return
    try:
        request = urllib.request.Request(f"{uri.rstrip('/')}/version", headers=authorization())
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            there = answer.read(100).decode(errors="replace").strip()
    except (urllib.error.URLError, OSError, ValueError) as error:
        yield Finding(
            Level.warning,
            f"the MLflow server {uri} does not answer ({error}): a sweep runs and delivers when it does; start it",
        )
        return
    text, here = f"the MLflow server {uri} answers, version {there}", _installed("mlflow")
    if there.split(".")[:2] == here.split(".")[:2]:
        yield _ok(text)
    else:
        yield Finding(Level.warning, f"{text}, here is {here}: what one of them does not know fails, use the same")


def _ray(config: AppConfig) -> Iterator[Finding]:
    """Start or join Ray as a sweep would."""
    place = os.environ.get("RAY_TMPDIR", "")
    if len(place) > LONGEST_TEMPORARY:
        yield _failed(
            f"RAY_TMPDIR={place} has {len(place)} characters: Ray's sockets need {LONGEST_TEMPORARY} or fewer"
        )
        return
    runs = Path(config.runtime.runs_dir).resolve()
    existing = next(parent for parent in [runs, *runs.parents] if parent.exists())
    try:
        with (
            tempfile.TemporaryDirectory(dir=existing, prefix="doctor") as probe,
            connected(config.cluster, Path(probe)),
        ):
            yield from _nodes(config)
    except (InputError, WorkError, OSError) as error:
        yield _failed(str(error))


def _nodes(config: AppConfig) -> Iterator[Finding]:
    import ray

    total = ray.cluster_resources()
    alive = sum(node["Alive"] for node in ray.nodes())
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")
    yield _ok(f"{alive} node(s), {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs, authentication {mode}")
    if mode != "token":
        yield Finding(Level.warning, "the cluster takes anybody who reaches it: start it with RAY_AUTH_MODE=token")
    per_trial = trial_resources(config.runtime.resources, config.cluster.autoscaling)
    each = ", ".join(f"{count:g} {name}" for name, count in per_trial.items())
    yield _ok(f"a trial gets {each}; {config.search.concurrency or slots(per_trial)} run at once")
    if config.runtime.resources.gpus == AUTO and "GPU" in per_trial:
        yield _ok("runtime.resources.gpus=auto: how many share a GPU is measured before trials begin")


CHECKS: dict[str, Callable[[AppConfig], Iterator[Finding]]] = {
    "packages": _packages,
    "machine": _machine,
    "data": _data,
    "results": _results,
    "tracking": _tracking,
    "ray": _ray,
}
