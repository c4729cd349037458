"""Start Ray on this machine, or join it where it runs. Nothing else starts or joins Ray."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.cluster.environment import FOR_WORKERS, environment, only_allowed, same_imports
from sweep.cluster.join import check_visible, join
from sweep.cluster.session_directory import session_directory
from sweep.cluster.watch import KEPT, end_processes_of, ended, ends_as_ctrl_c, shut_down, watched
from sweep.config.schema import ClusterConfig, ClusterKind
from sweep.errors import InputError, WorkError

_OWN_CODE = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": False}  # under `uv run` Ray would ship the working directory to workers
# Loopback is this machine's address, as it is on systems where firewalls ask about others.
_AT_HOME = {"ENABLE_RAY_CLUSTER": False, **_OWN_CODE}
ATTEMPTS = 2  # at starting Ray
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
                with _constants(**_OWN_CODE):
                    join(config.address or "auto", run_directory, _QUIET, FOR_WORKERS)
        if config.kind is ClusterKind.address:
            check_visible(run_directory)
        with ends_as_ctrl_c():
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
    with contextlib.ExitStack() as stack:
        _start_patiently(config, stack)
        try:
            with watched(), _without_reports():
                yield
        except KeyboardInterrupt as error:
            if not ended():
                raise
            raise WorkError(f"{ended()}. {KEPT}.") from error


def _start_patiently(config: ClusterConfig, stack: contextlib.ExitStack) -> None:
    """Start Ray, which `stack` ends; and once more where its processes were too slow, as on a busy machine."""
    told = {"cluster.cpus": config.cpus, "cluster.gpus": config.gpus}
    asked = ", ".join(f"{key}={value}" for key, value in told.items() if value is not None)
    machine = f"on this machine{' with ' if asked else ''}{asked}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with contextlib.ExitStack() as tried:
                _start(config, tried)
                stack.enter_context(tried.pop_all())
                return
        except Exception as error:
            if isinstance(error, ValueError | OSError) and not isinstance(error, TimeoutError):
                raise InputError(
                    f"Ray cannot start {machine}: {error} Possible are fewer cluster.gpus, and a short and writable "
                    "directory in RAY_TMPDIR."
                ) from error
            if attempt == ATTEMPTS:
                raise WorkError(
                    f"Ray failed to start {machine}, {ATTEMPTS} times: {error} None of its processes is left. Run the "
                    "command again when the machine has less to do."
                ) from error


def _start(config: ClusterConfig, stack: contextlib.ExitStack) -> None:
    import ray

    directory = stack.enter_context(session_directory())
    stack.callback(shut_down)
    _refresh_authentication()
    options = {"num_cpus": config.cpus, "num_gpus": config.gpus, "_temp_dir": str(directory), **_QUIET}
    # Ray puts the working directory first on its workers' path: a module there that is called as one of ours would win.
    with only_allowed(), same_imports(), contextlib.chdir(directory.parent), _constants(**_AT_HOME), _bare():
        try:
            ray.init(address="local", **options)  # "local", because a RAY_ADDRESS of the user's would else be joined
        except BaseException:
            end_processes_of(directory)
            raise


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
def _constants(**values: Any) -> Iterator[None]:
    """Set constants of Ray's, which it reads from the environment before anybody could set that."""
    from ray._private import ray_constants

    before = {name: getattr(ray_constants, name) for name in values}
    vars(ray_constants).update(values)
    try:
        yield
    finally:
        vars(ray_constants).update(before)


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
