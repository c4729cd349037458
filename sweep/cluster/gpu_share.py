"""runtime.resources.gpus=auto: how many trials share a GPU, measured on one of the cluster before trials begin."""

import os

import ray
import torch
from rich.console import Console

from odenet.networks.refinement import refine
from odenet.training.config import ExperimentConfig, RuntimeConfig
from odenet.training.gpu_load import MIB, GpuLoad, gpu_load
from odenet.training.loop import Training
from sweep.cluster.left_out import LeftOut
from sweep.config.schema import AppConfig

MINUTES = 5  # for a node to give the GPU and a process to start there


def trials_on_a_gpu(config: AppConfig, console: Console, left_out: LeftOut) -> int:
    """Measure the configured network, at its final depth, on a GPU of the cluster, and say what was found.

    Raises:
        ray.exceptions.RayError: it could not be measured.
    """
    task = ray.remote(num_cpus=config.runtime.resources.cpus, num_gpus=1, label_selector=left_out.selector())(_measure)
    measured = task.remote(config.experiment, config.runtime.for_training())
    load, total_mib, cpus = ray.get(measured, timeout=60 * MINUTES)
    count = load.trials_on(total_mib, max(1, cpus // config.runtime.resources.cpus))
    console.print(load_sentence(load, count), highlight=False)
    return count


def load_sentence(load: GpuLoad, count: int) -> str:
    return (
        f"runtime.resources.gpus=auto: an iteration takes {load.step_ms:.1f} ms, of which the GPU works "
        f"{load.busy:.0%}, and {load.memory_mib:,.0f} MiB of its memory: {count} to a GPU"
    )


def _measure(experiment: ExperimentConfig, runtime: RuntimeConfig) -> tuple[GpuLoad, float, int]:
    """Measure on a worker, and return the load, the GPU's memory in MiB and the node's CPUs."""
    training = Training(experiment, runtime)
    for _ in range(experiment.refinement.times):
        training.change_depth(refine)
    total_mib = torch.cuda.get_device_properties(0).total_memory / MIB
    return gpu_load(training), total_mib, os.cpu_count() or 1
