"""The environment variables of Ray's processes: those set for Ray, and of the user's those that training needs."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from sweep.config.schema import ClusterConfig, ClusterKind
from sweep.interpreter import import_path

FOR_WORKERS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # else a trial without a GPU sees all of them
}
_FOR_THE_DRIVER = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
_LOCAL = {
    # By workers that wait for the first trials.
    "RAY_preload_python_modules": "sweep.worker.trainable,sweep.worker.segment_training",
    "RAY_enable_metrics_collection": "false",  # its ports answer without a token
    "RAY_raylet_start_wait_time_s": "120",  # for a busy machine, instead of 30
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes Ray's processes listen on loopback, on any system
}
# What of the user's would have Ray do something else than it was asked for: how Tune takes results (in batches, say),
# and of a local Ray which code and how many CPUs there are.
STEERING = ("TUNE_*", "RAY_AIR_*", "RAY_TRAIN_*", "RAY_CLIENT_MODE")
_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # which Ray's client would prefer to the one it is given
_STEERING_LOCAL = ("RAY_RUNTIME_ENV_HOOK", "RAY_OVERRIDE_*", "RAY_JOB_CONFIG_JSON_ENV_VAR")
# What training on this machine needs of the user's environment. Everything else stays with the driver: keys, tokens and
# passwords of other programs, above all, of which Ray writes some into its logs.
ALLOWED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPLATLIBDIR", "PYTHONSAFEPATH"),
    *("PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
    *("PYTHONMALLOC", "PYTHONFAULTHANDLER", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("RAY_*", "TUNE_*", "GRPC_*"),
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "CUBLAS_*", "CUDNN_*", "HIP_*", "HSA_*", "ROCR_*"),  # with MPS: CUDA_MPS_*
    *("TORCH*", "PYTORCH_*", "TRITON_*"),
    *("LD_*", "DYLD_*", "MALLOC_*", "GLIBC_TUNABLES"),  # the dynamic loader, the allocator
    *("OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "VECLIB_*"),  # threads
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)


# With runtime.storage=s3://...: what workers need to write there.
BUCKET_ENVIRONMENT = ("AWS_*",)


def is_allowed(name: str) -> bool:
    """Tell whether Ray's processes get this variable of the user's."""
    return _matches(name, ALLOWED)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def only_allowed(passed: Iterable[str] = ()) -> AbstractContextManager[None]:
    """Hide from processes that are started inside the block what they do not need. `passed`: patterns of what they
    need besides."""
    return _hidden(lambda name: not (is_allowed(name) or _matches(name, passed)))


@contextmanager
def _hidden(which: Callable[[str], bool]) -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if which(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def same_imports() -> Iterator[None]:
    """Let processes that are started inside the block import what this one does."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = import_path()
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def environment(config: ClusterConfig) -> Iterator[None]:
    """Set what Ray is to find: quiet, authentication. What the user had set for Ray stays, and what would change what a
    search does is hidden, until the end."""
    local = config.kind is ClusterKind.local
    wanted = FOR_WORKERS | _FOR_THE_DRIVER | _authentication(config.kind) | (_LOCAL if local else {})
    steering = (*STEERING, *_STEERING_LOCAL) if local else STEERING
    with _hidden(lambda name: _matches(name, steering)), _added(wanted):
        yield


@contextmanager
def client_environment() -> Iterator[None]:
    """Set what Ray's client of a job server is to find: the token, and no address but the one that it is given."""
    with _hidden(lambda name: name in _ADDRESSES), _added(_authentication(ClusterKind.address)):
        yield


@contextmanager
def _added(wanted: dict[str, str]) -> Iterator[None]:
    """Set variables that the user has not set."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _authentication(kind: ClusterKind) -> dict[str, str]:
    """Say the token authentication explicitly, because Ray's own default differs between starting and joining."""
    token_given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if kind is ClusterKind.address:
        token_given = token_given or (Path.home() / ".ray" / "auth_token").exists()
        return {"RAY_AUTH_MODE": "token" if token_given else "disabled"}
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or token_given:
        return {"RAY_AUTH_MODE": "token"}
    # Only this process and Ray's below it ever know the token; Ray itself would write a file that all can read.
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
