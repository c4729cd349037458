"""Start Ray on this machine, or join it where it runs. Nothing else starts or joins Ray."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.cluster.environment import FOR_WORKERS, environment, only_allowed
from sweep.cluster.join import check_visible, join
from sweep.cluster.session_directory import session_directory
from sweep.cluster.watch import KEPT, ended, shut_down, watched
from sweep.config.schema import ClusterConfig, ClusterKind
from sweep.errors import InputError, WorkError

_QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


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
            stack.enter_context(environment(config))
            if config.kind is ClusterKind.local:
                stack.enter_context(_started(config))
            else:
                stack.callback(ray.shutdown)
                _refresh_authentication()
                join(config.address or "auto", run_directory, _QUIET, FOR_WORKERS)
        if config.kind is ClusterKind.address:
            check_visible(run_directory)
        yield


def _refresh_authentication() -> None:
    """Make Ray read mode and token again: it reads them once, perhaps before they were set here."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _started(config: ClusterConfig) -> Iterator[None]:
    """Start Ray's processes on this machine, which listen on loopback only, and end them. WorkError: one of them has
    ended before."""
    import ray

    asked = f"cluster.cpus={config.cpus}, cluster.gpus={config.gpus}"
    with contextlib.ExitStack() as stack:
        try:  # "local", because a RAY_ADDRESS of the user's would otherwise be joined
            directory = stack.enter_context(session_directory())
            stack.callback(shut_down)
            _refresh_authentication()
            with only_allowed(), _on_loopback(), _bare():
                options = {"num_cpus": config.cpus, "num_gpus": config.gpus, "_temp_dir": str(directory), **_QUIET}
                ray.init(address="local", **options)
        except (ValueError, OSError) as error:
            raise InputError(
                f"Ray cannot start on this machine with {asked}: {error} "
                "Possible are fewer cluster.gpus, and a short and writable directory in RAY_TMPDIR."
            ) from error
        except Exception as error:  # a bare one is what Ray raises when its processes are slow to start
            raise WorkError(f"Ray failed to start on this machine with {asked}: {error}") from error
        try:
            with watched(), _without_reports():
                yield
        except KeyboardInterrupt as error:
            if not ended():
                raise
            raise WorkError(f"{ended()}. {KEPT}.") from error


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep Ray from printing what its processes report, forty lines where one of them was killed: rows and logs have
    it."""
    from ray._private import worker

    before, worker._worker_logs_enabled = worker._worker_logs_enabled, False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray take loopback for this machine's address, as it does on systems where firewalls ask about others."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _bare() -> Iterator[None]:
    """Keep Ray from starting what one machine has no use for: an autoscaler, a reader of logs that nobody hears, and
    the server of the dashboard, which it starts without a dashboard, too. They take seconds of processor time."""
    from ray._private.node import Node

    def nothing(_: Node, **_options: Any) -> None: ...

    names = ("start_monitor", "start_log_monitor", "start_api_server")
    before = {name: getattr(Node, name) for name in names}
    try:
        for name in names:
            setattr(Node, name, nothing)
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)
