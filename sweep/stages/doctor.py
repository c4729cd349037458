"""`sweep doctor`: find what of this machine, or of the cluster, would stop a sweep. Nothing that it writes stays."""

import importlib
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console

from odenet.data.config import DataSet
from odenet.data.sets import load_test
from sweep.cluster.connect import connected
from sweep.cluster.left_out import LeftOut
from sweep.cluster.nodes import (
    VERSIONS,
    NodeQuestion,
    NodeReport,
    complaints,
    mps_place,
    mps_runs,
    node_reports,
    report,
)
from sweep.cluster.resources import slots, trial_resources
from sweep.cluster.session_directory import LONGEST_TEMPORARY
from sweep.config.schema import AUTO, AppConfig, ClusterKind
from sweep.console import say
from sweep.errors import InputError, WorkError
from sweep.interpreter import ABSENT, DISTRIBUTION, installed_version
from sweep.records.files import storing
from sweep.stages.listing import View, print_json, show_nodes
from sweep.storage.mirroring import check_usable
from sweep.tracking.environment import CREDENTIALS
from sweep.tracking.sqlite_store import network_sentence

FEW_BYTES = 5 * 2**30  # free where results go: a checkpoint has megabytes, an MLflow store of a study hundreds of them
ANSWER_SECONDS = 5


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
    nodes: Sequence[NodeReport] = ()  # of a cluster, to be shown as a table


def doctor(config: AppConfig, console: Console, view: View = View.window) -> None:
    """Print a line for every finding, and a table of a cluster's nodes; or all of it as JSON.

    Raises:
        WorkError: a check failed.
    """
    found: list[tuple[str, Finding]] = []
    for name, check in CHECKS.items():
        for finding in check(config):
            found.append((name, finding))
            if view is not View.json:
                say(f"{finding.level.value:<8} {name:<9} {finding.text}", console)
                show_nodes(finding.nodes, VERSIONS, console, view)
    if view is View.json:
        checks = [{"check": name, "level": one.level.value, "text": one.text} for name, one in found]
        nodes = [asdict(node) for _, one in found for node in one.nodes]
        print_json({"checks": checks, "nodes": nodes}, console)
    failed = sum(one.level is Level.failed for _, one in found)
    if failed:
        raise WorkError(f"{failed} check(s) failed; a sweep with this configuration would, too.")
    if view is not View.json:
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
        found = installed_version(requirement.name)
        if found == ABSENT or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} where {requirement.specifier or 'any version'} is needed")
    if wrong:
        yield _failed(f"{'; '.join(wrong)}: install by `uv pip install -r requirements.lock`")
    names = ("torch", "ray", "optuna", "mlflow", "hydra-core")
    yield _ok(f"Python {platform.python_version()}, {', '.join(f'{name} {installed_version(name)}' for name in names)}")
    try:
        importlib.import_module("torchvision")  # beside a torch of another build this fails
    except (ImportError, RuntimeError) as error:
        yield _failed(f"torchvision cannot be imported beside this torch: {error}. Take both from the lock file")


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
    place = mps_place()
    if not gpus and not place.exists():
        return
    if mps_runs():
        yield _ok(f"the CUDA MPS daemon runs ({place}): trials that share a GPU compute at the same time")
        return
    asked = config.runtime.resources.gpus
    shares = asked == AUTO or 0 < float(asked or 0) < 1
    yield Finding(
        Level.warning if shares else Level.ok,
        f"no CUDA MPS daemon runs ({place}): trials that share a GPU take turns. To start one, as the user of the "
        "trials and before them: `nvidia-cuda-mps-control -d`; to end it: `echo quit | nvidia-cuda-mps-control`",
    )


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


def _storage(config: AppConfig) -> Iterator[Finding]:
    """Write an object to storage and delete it, where there is any."""
    storage = config.runtime.storage
    if storage is None:
        return
    try:
        check_usable(storage)
    except InputError as error:
        yield _failed(str(error))
        return
    yield _ok(f"{storage} takes, gives and deletes objects")


def _tracking(config: AppConfig) -> Iterator[Finding]:
    uri = config.tracking.uri
    if uri is None:
        advice = network_sentence(Path(config.runtime.runs_dir))
        yield Finding(Level.warning, advice) if advice else _ok("MLflow's store is a sqlite file in the run directory")
        return
    from sweep.tracking.client import server_version

    try:
        there = server_version(uri, ANSWER_SECONDS)
    except PermissionError as error:
        yield Finding(Level.warning, f"the MLflow server {uri} does not take who asks ({error}): {CREDENTIALS}")
        return
    except OSError as error:
        yield Finding(
            Level.warning,
            f"the MLflow server {uri} does not answer ({error}): a sweep runs and delivers when it does; start it",
        )
        return
    text, here = f"the MLflow server {uri} answers, version {there}", installed_version("mlflow")
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
            connected(config.cluster, Path(probe), everywhere=False) as left_out,
        ):
            yield from _resources(config, left_out)
            if config.cluster.kind is ClusterKind.address:
                yield from _nodes(config, Path(probe))
    except (InputError, WorkError, OSError) as error:
        yield _failed(str(error))


def _nodes(config: AppConfig, directory: Path) -> Iterator[Finding]:
    """Ask each node of a cluster, and name those that would stop a sweep or trouble it."""
    marker, content = directory / "marker", secrets.token_hex(8)
    marker.write_text(content)
    data_dir = "" if config.data.dataset is DataSet.digits else config.runtime.data_dir
    asked = NodeQuestion(str(marker), content, data_dir, config.tracking.uri or "")
    nodes, here = node_reports(asked), report(asked)
    yield Finding(Level.ok, "what each node says of itself:", nodes)
    for node in nodes:
        for stops, text in complaints(node, here):
            yield Finding(Level.failed if stops else Level.warning, f"{node.host}: {text}")


def _resources(config: AppConfig, left_out: LeftOut) -> Iterator[Finding]:
    import ray

    total = ray.cluster_resources()
    alive = sum(node["Alive"] for node in ray.nodes())
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")
    yield _ok(f"{alive} node(s), {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs, authentication {mode}")
    if mode != "token":
        yield Finding(Level.warning, "the cluster takes anybody who reaches it: start it with RAY_AUTH_MODE=token")
    for sentence in left_out.sentences():
        yield Finding(Level.warning, sentence)
    per_trial = trial_resources(config.runtime.resources, config.cluster.autoscaling, left_out=left_out)
    each = ", ".join(f"{count:g} {name}" for name, count in per_trial.items())
    yield _ok(f"a trial gets {each}; {config.search.concurrency or slots(per_trial, left_out)} run at once")
    if config.runtime.resources.gpus == AUTO and "GPU" in per_trial:
        yield _ok("runtime.resources.gpus=auto: how many share a GPU is measured before trials begin")


CHECKS: dict[str, Callable[[AppConfig], Iterator[Finding]]] = {
    "packages": _packages,
    "machine": _machine,
    "data": _data,
    "results": _results,
    "storage": _storage,
    "tracking": _tracking,
    "ray": _ray,
}
