"""Join a Ray cluster that runs already: is it one, does it take us, do its nodes see the run directory.

What is imported from below `ray._private` and `ray.core.generated` is as the pinned version has it.
"""

import contextlib
import os
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sweep.cluster.left_out import LeftOut, host_of
from sweep.errors import InputError
from sweep.interpreter import PACKAGES
from sweep.records.files import obstacle

NODE_SECONDS = 60  # for a node to start a process with the shipped code and to look at the run directory
ALIVE_SECONDS = 5  # for a cluster to say that it is one
LONGEST_ANSWER = 300  # characters of what Ray says of a node


def join(address: str, run_directory: Path, options: dict[str, Any], worker_environment: dict[str, str]) -> None:
    """Connect this process to the cluster at HOST:PORT or auto and ship the code there.

    `options` go to ray.init, `worker_environment` to every process of the job.

    Raises:
        InputError: nothing answers there, or it does not take this token, version or machine. Within 30 seconds.
    """
    import ray

    address = _resolve(address)
    _check_joinable(address)
    environment = {
        "py_modules": [_package(name) for name in PACKAGES],
        "excludes": ["__pycache__"],
        "env_vars": worker_environment,
    }
    # Ray puts the driver's working directory before the shipped code: a stale checkout at the same path would win.
    with contextlib.chdir(run_directory):
        try:
            ray.init(address=address, runtime_env=environment, **options)
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(f"The Ray cluster at {address} cannot be joined: {error}") from error


def _package(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None and spec.submodule_search_locations is not None
    return str(Path(spec.submodule_search_locations[0]).absolute())


def _resolve(address: str) -> str:
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _found_here()
    if not re.fullmatch(r"[^/\s]+:\d{1,5}", address):
        raise InputError(
            f"cluster.address={address} must be HOST:PORT or auto. Ray Client (ray://) is not supported: "
            "run the command on a node of the cluster, or submit it there by `sweep submit`."
        )
    return address


def _found_here() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address("auto") or "auto"
    except ConnectionError as error:
        raise InputError(
            "cluster.address=auto: no Ray cluster runs on this machine, and RAY_ADDRESS is not set. "
            "Give HOST:PORT, start one (`ray start --head`), or use cluster=local."
        ) from error


def _check_joinable(address: str) -> None:
    """Ask the cluster directly, because ray.init waits 80 seconds for a wrong address and then ends the process."""
    import grpc  # type: ignore[import-untyped]
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.services import find_node_ids
    from ray.core.generated import gcs_service_pb2_grpc
    from ray.core.generated.gcs_service_pb2 import (  # type: ignore[attr-defined]  # generated at run time
        CheckAliveRequest,
        GetAllNodeInfoRequest,
    )

    try:
        with init_grpc_channel(address) as channel:
            service = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            version = service.CheckAlive(CheckAliveRequest(), timeout=ALIVE_SECONDS).ray_version
            known = service.GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=ALIVE_SECONDS).node_info_list
    except (grpc.RpcError, ray.exceptions.AuthenticationError) as error:
        raise InputError(_refusal(address, error)) from error
    if version != ray.__version__:
        raise InputError(
            f"The Ray cluster at {address} runs Ray {version}, this is {ray.__version__}; both must be the same."
        )
    if not {node.node_id.hex() for node in known} & set(find_node_ids()):
        raise InputError(
            f"This machine is no node of the Ray cluster at {address}. Submit the command by `sweep submit ... "
            "cluster.job_server=http://HEAD:8265`, run it on one of the nodes, or make this one a node: "
            f"`ray start --address={address}`."
        )


def _refusal(address: str, error: Exception) -> str:
    import grpc

    if isinstance(error, grpc.Call) and error.code() is not grpc.StatusCode.UNAUTHENTICATED:
        return f"No Ray cluster answers at cluster.address={address}: {error.details()}"
    return (
        f"The Ray cluster at {address} refuses this process's token (RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}). Set "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a readable file with the cluster's token, as on its nodes."
    )


def check_visible(run_directory: Path, left_out: LeftOut) -> None:
    """Have every node that is alive look at the run directory, and leave out those that cannot use it.

    Raises:
        InputError: it cannot be written from here, or not be used from any node with CPUs.
    """
    import ray

    directory = run_directory.absolute()
    left_out.hear(ray.nodes())
    probe = _probe(directory)
    try:
        blind = obstacles(Path(probe), left_out, NODE_SECONDS)
    finally:
        Path(probe).unlink(missing_ok=True)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in left_out.reasons]
    seeing = [node for node in nodes if node["NodeID"] not in blind]
    if blind and not any(node["Resources"].get("CPU") for node in seeing):
        raise InputError(
            f"A node must read and write the run directory {directory} to run trials; {len(blind)} of {len(nodes)} "
            f"cannot, and no other has CPUs: {'; '.join(blind.values())}. Choose a directory on storage that all nodes "
            "mount at the same path: runtime.runs_dir=/shared/runs, say."
        )
    for node, reason in blind.items():
        left_out.add(node, reason)


def obstacles(marker: Path | None, left_out: LeftOut, seconds: float) -> dict[str, str]:
    """Find by node, of those that are alive and not left out, what keeps it from using the marker's directory. Nodes
    that can use it are not in the result."""
    import ray

    nodes = {node["NodeID"]: host_of(node) for node in ray.nodes() if node["Alive"]}
    looks = {node: _look(node, marker) for node in nodes if node not in left_out.reasons}
    if not looks:
        return {}
    ray.wait(list(looks.values()), num_returns=len(looks), timeout=seconds, fetch_local=False)
    answers = {node: _answer(look, seconds) for node, look in looks.items()}
    return {node: f"{nodes[node]}: {answer}" for node, answer in answers.items() if answer}


def _probe(directory: Path) -> str:
    try:
        descriptor, path = tempfile.mkstemp(prefix=".visible-", dir=directory)
    except OSError as error:
        raise InputError(f"The run directory {directory} cannot be written: {error.strerror}.") from error
    os.close(descriptor)
    return path


def _look(node: str, marker: Path | None) -> Any:
    """Ask a node to look at the marker, and return the future of its answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(obstacle).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(marker)


def _answer(look: Any, seconds: float) -> str:
    import ray

    try:
        return ray.get(look, timeout=1)
    except ray.exceptions.GetTimeoutError:
        return f"no answer within {seconds:.0f} s"
    except ray.exceptions.RayError as error:
        return " ".join(str(error).split())[:LONGEST_ANSWER]
