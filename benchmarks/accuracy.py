"""Accuracy of named networks at the papers' settings, beside the published figure; odenet only, no sweep.

    python benchmarks/accuracy.py --data DIR [--networks continuous_2_euler,resnet20] [--reduced] [--seeds 3] ...

Each run trains on all training images (or `--per-class` of each class) with the papers' batches of 128, SGD and a rate
that falls by 10 twice, and looks at the test set once, at the end. Published figures are those of arXiv 2008.02389 and
2106.10820 for all of CIFAR-10; some of them are the best epoch's on the test set. "unverified" stands where a paper
has one that could not be read, "-" where there is none for this setting. Every run is a process of its own, so that
its peak memory is its own; finished runs are appended to `--output` and not run again.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS, print_table

from odenet.data.batches import Batches, Statistics
from odenet.data.sets import DamagedData, MissingData, load_test
from odenet.data.subsets import Splits, load_data
from odenet.enums import Device
from odenet.training.config import ExperimentConfig, RuntimeConfig, from_plain, identity
from odenet.training.evaluation import evaluate
from odenet.training.loop import Diverged, Training

UNVERIFIED, NONE = "unverified", "-"


@dataclass(frozen=True, slots=True)
class Preset:
    """A network at its paper's settings on CIFAR-10."""

    model: Mapping[str, Any]
    published: str = NONE  # accuracy in percent
    family: bool = False  # stands for its family in a reduced run
    epochs: int = 120
    weight_decay: float = 5e-4
    refinement: Mapping[str, Any] = field(default_factory=dict)


def _continuous(nodes: int, scheme: str) -> dict[str, Any]:
    return {"network": "continuous", "nodes": nodes, "scheme": scheme}


_REFINED = _continuous(1, "rk4")
_CHANG = {"width": 32, "final_width": 112}

PRESETS: dict[str, Preset] = {
    # Queiruga et al. 2020, arXiv 2008.02389; figures of the authors' README. Fractions are their epochs out of 120.
    "continuous_2_euler": Preset(_continuous(2, "euler"), "91.41", family=True),
    "continuous_2_rk4": Preset(_continuous(2, "rk4"), "91.01", family=True, weight_decay=1e-4),
    "continuous_8_euler": Preset(_continuous(8, "euler"), "93.11"),
    "continuous_8_rk4": Preset(_continuous(8, "rk4"), "93.29"),
    "continuous_1_2_rk4": Preset(_REFINED, "91.09", weight_decay=1e-4, refinement={"count": 1, "first": 25 / 120}),
    "continuous_1_8_rk4": Preset(_REFINED, "93.06", refinement={"count": 3, "first": 0.25, "interval": 1 / 6}),
    "continuous_preact": Preset({"network": "continuous_preact"}, family=True),
    "resnet20": Preset({"network": "preact_resnet"}, "91.31", family=True),
    "resnet56": Preset({"network": "preact_resnet", "nodes": 8}, "93.11"),  # called ResNet-52 there
    # Queiruga et al. 2021, arXiv 2106.10820.
    "stateful_16": Preset({"network": "stateful", "nodes": 16}, "93.69", epochs=180),
    "stateful_4": Preset({"network": "stateful", "nodes": 4}, epochs=180, family=True),
    # Chang et al. 2018, arXiv 1709.03698, and RevNet, Gomez et al. 2017, arXiv 1707.04585.
    "hamiltonian74": Preset({"network": "hamiltonian", "nodes": 6, **_CHANG}, UNVERIFIED, True, 160, 2e-4),
    "midpoint26": Preset({"network": "midpoint", "nodes": 4, **_CHANG}, UNVERIFIED, True, 160, 2e-4),
    "leapfrog26": Preset({"network": "leapfrog", "nodes": 4, **_CHANG}, UNVERIFIED, True, 160, 2e-4),
    "revnet38": Preset({"network": "revnet", "nodes": 3, **_CHANG}, UNVERIFIED, True, 160, 2e-4),
    # Sander et al. 2022, arXiv 2205.14612.
    "scaled_resnet": Preset({"network": "scaled_resnet", "nodes": 8}, family=True, epochs=90),
    "heunnet": Preset({"network": "heunnet", "nodes": 8}, family=True, epochs=90),
    # Lu et al. 2018, arXiv 1710.10121, and what it explains as schemes.
    "lm_resnet20": Preset({"network": "lm_resnet"}, UNVERIFIED, True, 160, 1e-4),
    "lm_resnet56": Preset({"network": "lm_resnet", "nodes": 8}, UNVERIFIED, False, 160, 1e-4),
    "polynet": Preset({"network": "polynet"}, family=True),
    "fractalnet": Preset({"network": "fractalnet"}, family=True),
    # References; the narrow ones are what a CPU can train.
    "wide_resnet_2": Preset({"network": "wide_resnet", "widen": 2}, family=True),
    "wide_resnet_4": Preset({"network": "wide_resnet", "widen": 4, "nodes": 8}),
    "bottleneck_resnet29": Preset({"network": "bottleneck_resnet", "widen": 4, "nodes": 2}, family=True),
    "bottleneck_resnet164": Preset({"network": "bottleneck_resnet", "widen": 4, "nodes": 17}, epochs=160),
    "resnext29_4x16": Preset({"network": "resnext", "widen": 4, "cardinality": 4, "nodes": 2}, family=True),
    "neural_ode": Preset({"network": "neural_ode", "nodes": 1}, family=True),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    name: str
    config: ExperimentConfig
    data: str
    runtime: RuntimeConfig
    threads: int

    @property
    def key(self) -> str:
        """Equal for runs that learn the same."""
        return identity(self.config)


def experiment(preset: Preset, seed: int, options: argparse.Namespace) -> ExperimentConfig:
    """The preset as a typed configuration; refuses what is not possible, naming the key."""
    plain = {
        "model": dict(preset.model),
        "data": {
            "dataset": "cifar10",
            "per_class": options.per_class,
            "portion": "trainval",
            "augment": "standard",
        },
        "optim": {
            "schedule": "step",
            "lr": 0.1,
            "weight_decay": preset.weight_decay,
            "batch_size": options.batch_size,
        },
        "refinement": dict(preset.refinement),
        "training": {"epochs": options.epochs or preset.epochs, "seed": seed, "precision": options.precision},
    }
    return from_plain(ExperimentConfig, plain)


# --- one run, in a process of its own --------------------------------------------------------------------------------


def run(job: Job) -> dict[str, Any]:
    """Trains one network and tests it; its row of the output file."""
    torch.set_num_threads(job.threads)
    data = load_data(job.config.data, job.data)
    _forget_peak()
    started = time.perf_counter()
    training, losses, outcome = Training(job.config, job.runtime, data=data), [], "done"
    try:
        for report in training:
            losses.append(report.metrics["train/loss"])
    except Diverged:
        outcome = "diverged"
    cost = {
        "epochs": training.epoch,
        "seconds_per_epoch": (time.perf_counter() - started) / max(training.epoch, 1),
        "peak_mib": _peak_mib(training),
    }
    return cost | {
        "name": job.name,
        "key": job.key,
        "seed": job.config.training.seed,
        "outcome": outcome,
        "accuracy": _test(training, data, job) if outcome == "done" else None,
        "loss": [losses[0], losses[-1]] if losses else None,
        "parameters": training.model.parameter_count,
        "threads": job.threads,
    }


def _test(training: Training, data: Splits, job: Job) -> float:
    device = next(training.model.parameters()).device
    images = load_test(job.config.data, job.data)
    return evaluate(training.model, Batches(images, statistics=Statistics.of(data.train), device=device)).accuracy


def _forget_peak() -> None:
    """Reading the data took more memory than training a small network does; Linux can count anew from here."""
    count = Path("/proc/self/clear_refs")
    if count.exists():
        count.write_text("5")


def _peak_mib(training: Training) -> float:
    """Of training: its tensors on a GPU, else all that is resident in this process, the libraries too."""
    if next(training.model.parameters()).is_cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# --- all of them -----------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="directory with cifar-10-batches-py")
    parser.add_argument("--networks", help=f"comma-separated; all, if not given: {', '.join(PRESETS)}")
    parser.add_argument(
        "--reduced", action="store_true", help="one network of each family, 200 images per class, 60 epochs"
    )
    parser.add_argument("--epochs", type=int, help="instead of the paper's")
    parser.add_argument("--per-class", type=int, help="training images per class; all, if not given")
    parser.add_argument("--batch-size", type=int, help="128, reduced 32")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each network")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each run")
    parser.add_argument("--output", type=Path, default=RESULTS / "accuracy.jsonl", help="a JSON object a line")
    options = parser.parse_args()
    options.epochs = options.epochs or (60 if options.reduced else None)
    options.per_class = options.per_class or (200 if options.reduced else None)
    options.batch_size = options.batch_size or (32 if options.reduced else 128)
    if options.networks:
        names = options.networks.split(",")
    else:
        names = [name for name, preset in PRESETS.items() if preset.family or not options.reduced]
    unknown = [name for name in names if name not in PRESETS]
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}; there are {', '.join(PRESETS)}")
    options.networks = names
    return options


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Every network with the first seed, then with the second one, and so on."""
    runtime = RuntimeConfig(device=Device[options.device], data_dir=options.data)
    return [
        Job(name, experiment(PRESETS[name], seed, options), options.data, runtime, options.threads)
        for seed in range(options.seeds)
        for name in options.networks
    ]


def finished(output: Path) -> list[dict[str, Any]]:
    """The rows that are there already; a line cut off by a kill does not count."""
    lines = output.read_text().splitlines() if output.is_file() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def run_all(jobs: Sequence[Job], output: Path, workers: int) -> int:
    """Runs what is not in the file yet and appends it; returns how many failed."""
    done = {row["key"] for row in finished(output)}
    missing, failed = [job for job in jobs if job.key not in done], 0
    output.parent.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        running = {pool.submit(run, job): job for job in missing}
        for count, future in enumerate(concurrent.futures.as_completed(running), 1):
            job, error = running[future], future.exception()
            print(f"{count}/{len(missing)} {job.name} seed {job.config.training.seed}", error or "", flush=True)
            if error is not None:
                failed += 1
                continue
            with output.open("a") as file:
                file.write(json.dumps(future.result()) + "\n")
    return failed


def show(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """A line for each network; `rows` are those of the runs asked for."""
    by_name = {name: [row for row in rows if row["name"] == name] for name in names}
    heads = ["", "parameters", "published %", "test accuracy %", "min-max", "done", "train loss", "s/epoch", "peak MiB"]
    lines = [_line(name, of_name) for name, of_name in by_name.items() if of_name]
    print_table("accuracy: mean and standard deviation over seeds; published on all training images", heads, lines)


def _line(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    percent = [100 * row["accuracy"] for row in rows if row["outcome"] == "done"]
    losses = [row["loss"] for row in rows if row["loss"]]
    return [
        name,
        f"{rows[0]['parameters']:,}",
        PRESETS[name].published,
        *_accuracy(percent),
        f"{len(percent)} of {len(rows)}",
        " -> ".join(f"{statistics.mean(pair[i] for pair in losses):.3f}" for i in (0, 1)) if losses else "-",
        f"{statistics.median(row['seconds_per_epoch'] for row in rows):.1f}",
        f"{max(row['peak_mib'] for row in rows):.0f}",
    ]


def _accuracy(percent: Sequence[float]) -> tuple[str, str]:
    if not percent:
        return "-", "-"
    spread = f" +- {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{spread}", f"{min(percent):.2f}-{max(percent):.2f}"


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the runs: read when they load torch
    jobs = jobs_of(options)
    try:
        load_test(jobs[0].config.data, options.data)  # before anything is started
    except (MissingData, DamagedData) as error:
        raise SystemExit(str(error).replace("runtime.data_dir=DIR", "--data DIR")) from error
    failed = run_all(jobs, options.output, options.workers)
    keys = {job.key for job in jobs}
    show([row for row in finished(options.output) if row["key"] in keys], options.networks)
    if failed:
        raise SystemExit(f"{failed} run(s) failed; what is finished is kept, the same command runs the others again")


if __name__ == "__main__":
    main()
