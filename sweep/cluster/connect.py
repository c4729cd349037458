"""Ray, started on this machine or joined where it runs, and what its nodes offer. Nothing else starts or joins Ray."""

import contextlib
import os
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from sweep.cluster.join import check_visible, join
from sweep.errors import InputError, WorkError

LONGEST_TEMPORARY = 35  # characters: Ray's sockets lie 68 below, and a socket's path has at most 103 (macOS)
MOST = 100_000  # CPUs or GPUs of anything
SHARE_UNITS = 10_000  # Ray counts a GPU in ten-thousandths


class ClusterKind(Enum):
    """Where trials run: on a Ray that lives as long as the command, or on one that runs already."""

    local = "local"
    address = "address"


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    """Which Ray to use.

    Raises:
        ValueError: an option that belongs to the other kind, or a number that cannot be.
    """

    kind: ClusterKind = ClusterKind.local
    address: str | None = None  # HOST:PORT, or auto: $RAY_ADDRESS, else the cluster found on this machine
    autoscaling: bool = False  # the cluster adds nodes on demand, so what is present is no limit
    cpus: int | None = None  # local: how many Ray is told; None: what is here
    gpus: int | None = None

    def __post_init__(self) -> None:
        local = self.kind is ClusterKind.local
        if local and (self.address is not None or self.autoscaling):
            raise ValueError(
                "cluster.address and cluster.autoscaling need cluster=address; cluster=local starts Ray here."
            )
        if not local and self.address is None:
            raise ValueError("cluster=address needs cluster.address=HOST:PORT, or auto.")
        if not local and (self.cpus, self.gpus) != (None, None):
            raise ValueError("cluster.cpus and cluster.gpus are for cluster=local; a running cluster knows its own.")
        for name, value, least in (("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if value is not None and not least <= value <= MOST:
                raise ValueError(
                    f"cluster.{name}={value}: at least {least}, or null for what this machine has; at most {MOST}."
                )


@dataclass(kw_only=True, slots=True)
class Resources:
    """What one trial gets.

    Raises:
        ValueError: a number that Ray cannot give.
    """

    cpus: int = 1
    gpus: float | None = None  # None: one where Ray has GPUs, else none; below 1 a share of one GPU

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= MOST:
            raise ValueError(f"runtime.resources.cpus={self.cpus}: a trial needs at least 1, at most {MOST}.")
        gpus = self.gpus or 0.0
        if gpus and not (1 / SHARE_UNITS <= gpus <= 1 or (1 < gpus <= MOST and float(gpus).is_integer())):
            raise ValueError(
                f"runtime.resources.gpus={gpus}: possible are 0, a share of one GPU such as 0.25, and whole numbers."
            )


# --- connecting ---------------------------------------------------------------------------------------------------


@contextmanager
def connected(config: ClusterConfig, run_directory: Path) -> Iterator[None]:
    """Ray, ready for trials inside the block. Nested inside another, it uses what that one connected.

    At the end Ray is shut down where it was started here, and left where it was joined. The environment variables set
    for it (quiet, token) are taken back; those the user had set are never touched.

    Raises:
        InputError: Ray cannot start as asked; no cluster answers at the address, or not to this token, version or
            machine; a node cannot use the run directory.
        WorkError: Ray failed while starting.
    """
    import ray

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(_environment(config))
            stack.callback(ray.shutdown)
            _refresh_authentication()
            if config.kind is ClusterKind.local:
                _start(config)
            else:
                join(config.address or "auto", run_directory, _QUIET, _WORKER_ENVIRONMENT)
        if config.kind is ClusterKind.address:
            check_visible(run_directory)
        yield


@contextmanager
def _environment(config: ClusterConfig) -> Iterator[None]:
    wanted = _WORKER_ENVIRONMENT | _DRIVER_ENVIRONMENT | _authentication(config) | _temporary(config)
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


_WORKER_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # else a trial without a GPU sees all of them
}
_DRIVER_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
_QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


def _authentication(config: ClusterConfig) -> dict[str, str]:
    """Token authentication said explicitly: Ray's own default differs between starting and joining."""
    token_given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if config.kind is ClusterKind.address:
        token_given = token_given or (Path.home() / ".ray" / "auth_token").exists()
        return {"RAY_AUTH_MODE": "token" if token_given else "disabled"}
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or token_given:
        return {"RAY_AUTH_MODE": "token"}
    # Only this process and Ray's below it ever know the token; Ray itself would write a file that all can read.
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _temporary(config: ClusterConfig) -> dict[str, str]:
    """A directory short enough for Ray's sockets where the default, $TMPDIR on Linux, is not."""
    default = os.environ.get("TMPDIR", "") if sys.platform == "linux" else ""
    if config.kind is ClusterKind.address or len(default) <= LONGEST_TEMPORARY:
        return {}
    return {"RAY_TMPDIR": "/tmp"}


def _refresh_authentication() -> None:
    """Ray reads mode and token once, when it is imported or first used: before they were set here, perhaps."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _start(config: ClusterConfig) -> None:
    import ray

    asked = f"cluster.cpus={config.cpus}, cluster.gpus={config.gpus}"
    try:  # "local", because a RAY_ADDRESS of the user's would otherwise be joined
        ray.init(address="local", num_cpus=config.cpus, num_gpus=config.gpus, **_QUIET)
    except (ValueError, OSError) as error:
        raise InputError(
            f"Ray cannot start on this machine with {asked}: {error} "
            "Possible are fewer cluster.gpus, and a short and writable directory in RAY_TMPDIR."
        ) from error
    except Exception as error:  # a bare one is what Ray raises when its processes are slow to start
        raise WorkError(f"Ray failed to start on this machine with {asked}: {error}") from error


# --- what the nodes offer -------------------------------------------------------------------------------------------


class Node(NamedTuple):
    """One node that is alive."""

    id: str
    ip: str
    cpus: int
    gpus: int

    def fits(self, cpus: float, gpus: float) -> int:
        """How many trials fit. A share lies within one GPU: of 0.4 two fit on each, so four on two."""
        by_cpus = int(self.cpus // cpus)
        if gpus == 0:
            return by_cpus
        if gpus < 1:
            return min(by_cpus, self.gpus * (SHARE_UNITS // round(gpus * SHARE_UNITS)))
        return min(by_cpus, int(self.gpus // gpus))


def _nodes() -> list[Node]:
    import ray

    return [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def trial_resources(resources: Resources, autoscaling: bool = False) -> dict[str, float]:
    """One trial's resources as Ray's placement groups name them: {"CPU": 1.0, "GPU": 0.5}; no GPU, no key.

    `autoscaling` (of ClusterConfig): nodes may still come, so nothing is refused for being larger than those present,
    but whether trials get GPUs must be said.

    Raises:
        InputError: no node can ever meet it; the message says what the cluster has.
    """
    nodes = _nodes()
    gpus = resources.gpus
    if gpus is None:
        gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
        if autoscaling and not gpus:
            raise InputError(
                "No node has a GPU now, but cluster.autoscaling=true: say runtime.resources.gpus=1, a share, or 0."
            )
    if not autoscaling and not any(node.fits(resources.cpus, gpus) for node in nodes):
        raise InputError(
            f"A trial asks for {resources.cpus} CPUs and {gpus:g} GPUs on one node; the cluster has {_offer(nodes)}. "
            "Lower runtime.resources.cpus or runtime.resources.gpus; if nodes can still come, cluster.autoscaling=true."
        )
    return {"CPU": float(resources.cpus)} | ({"GPU": float(gpus)} if gpus else {})


def _offer(nodes: list[Node]) -> str:
    kinds = Counter((node.cpus, node.gpus) for node in nodes)
    listed = ", ".join(f"{n} x ({cpus} CPUs, {gpus} GPUs)" for (cpus, gpus), n in sorted(kinds.items()))
    return f"{listed}, in all {sum(node.cpus for node in nodes)} CPUs and {sum(node.gpus for node in nodes)} GPUs"


def slots(per_trial: dict[str, float]) -> int:
    """How many trials fit at once on the nodes present, other users' work not counted; at least 1."""
    return max(1, sum(node.fits(per_trial["CPU"], per_trial.get("GPU", 0.0)) for node in _nodes()))
