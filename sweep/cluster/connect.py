"""Start Ray on this machine, or join it where it runs. Nothing else starts or joins Ray."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.cluster.join import check_visible, join
from sweep.config.schema import ClusterConfig, ClusterKind
from sweep.errors import InputError, WorkError

LONGEST_TEMPORARY = 35  # characters: Ray's sockets lie 68 below, and a socket's path has at most 103 (macOS)


# --- connecting ---------------------------------------------------------------------------------------------------


@contextmanager
def connected(config: ClusterConfig, run_directory: Path) -> Iterator[None]:
    """Keep Ray ready for trials inside the block. Nested inside another, it uses what that one connected.

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
    """Say the token authentication explicitly, because Ray's own default differs between starting and joining."""
    token_given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if config.kind is ClusterKind.address:
        token_given = token_given or (Path.home() / ".ray" / "auth_token").exists()
        return {"RAY_AUTH_MODE": "token" if token_given else "disabled"}
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or token_given:
        return {"RAY_AUTH_MODE": "token"}
    # Only this process and Ray's below it ever know the token; Ray itself would write a file that all can read.
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _temporary(config: ClusterConfig) -> dict[str, str]:
    """Choose a directory short enough for Ray's sockets where the default, $TMPDIR on Linux, is not."""
    default = os.environ.get("TMPDIR", "") if sys.platform == "linux" else ""
    if config.kind is ClusterKind.address or len(default) <= LONGEST_TEMPORARY:
        return {}
    return {"RAY_TMPDIR": "/tmp"}


def _refresh_authentication() -> None:
    """Make Ray read mode and token again: it reads them once, perhaps before they were set here."""
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
