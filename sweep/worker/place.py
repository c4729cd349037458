"""Where a worker is: its host, its node in Ray, its GPU."""

import socket

import ray
import torch

from sweep.worker.segment import WorkerPlace


def here() -> WorkerPlace:
    """Describe the place of this process; outside of Ray the host alone."""
    if not ray.is_initialized():
        return WorkerPlace(host=socket.gethostname())
    numbers = ", ".join(map(str, ray.get_gpu_ids()))
    name = torch.cuda.get_device_name(0) if numbers and torch.cuda.is_available() else ""
    return WorkerPlace(
        host=socket.gethostname(), node=ray.get_runtime_context().get_node_id(), gpu=f"{numbers} {name}".strip()
    )
