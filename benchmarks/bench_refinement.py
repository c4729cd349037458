"""What refining during training saves: 1 -> 2 -> 4 nodes per stage against 4 from the start.

ContinuousNet of width 16 with Euler on random images of CIFAR-10's shape, the nets trained side by side, an epoch of
each in turn. The refined schedules have 1, 2 and 4 nodes for equal thirds of the epochs, or for 20, 20 and 60 % of
them. Executed operations are counted; seconds are those of training and refining.

    python benchmarks/bench_refinement.py [--quick]
"""

import numpy as np
import torch
from measure import Spread, parser, print_table, write

from odenet.data.config import DataConfig, DataSet, Portion
from odenet.data.sets import Images
from odenet.data.subsets import Splits
from odenet.enums import Device
from odenet.networks.model_config import ModelConfig
from odenet.training.config import ExperimentConfig, RuntimeConfig, TrainingConfig, from_plain
from odenet.training.loop import Training
from odenet.training.optim_config import OptimConfig
from odenet.training.refinement_config import RefinementConfig

EPOCHS = 15
SCHEDULES = {
    "4 from the start": (4, RefinementConfig()),
    "1 -> 2 -> 4 in thirds": (1, RefinementConfig(count=2, first=1 / 3, interval=1 / 3)),
    "1 -> 2 -> 4 in 20/20/60 %": (1, RefinementConfig(count=2, first=0.2, interval=0.2)),
}
GOALS = {"1 -> 2 -> 4 in thirds": "0.61-0.66", "1 -> 2 -> 4 in 20/20/60 %": "0.76-0.80"}
COSTS = {"GFLOP": "cost/train_gflops", "seconds": "cost/seconds"}


def random_images(count: int) -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Splits(Images(pixels, np.arange(count) % 10, np.arange(count)), None, classes=10, hash="random")


def training(schedule: str, data: Splits, batch_size: int, device: str) -> Training:
    nodes, refinement = SCHEDULES[schedule]
    config = ExperimentConfig(
        model=from_plain(ModelConfig, {"nodes": nodes}, "model"),
        data=DataConfig(dataset=DataSet.cifar10, per_class=None, portion=Portion.trainval),
        optim=OptimConfig(lr=0.01, batch_size=batch_size),
        refinement=refinement,
        training=TrainingConfig(epochs=EPOCHS),
    )
    return Training(config, RuntimeConfig(device=Device[device]), data=data)


def one_round(data: Splits, batch_size: int, device: str) -> dict[str, dict[str, float]]:
    """Costs of each schedule, an epoch of each in turn."""
    running = {name: training(name, data, batch_size, device) for name in SCHEDULES}
    reports = {name: next(trained) for _ in range(EPOCHS) for name, trained in running.items()}
    return {name: {cost: report.metrics[key] for cost, key in COSTS.items()} for name, report in reports.items()}


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    rounds, batch_size = options.rounds or (1 if options.quick else 3), 32 if options.quick else 128
    data = random_images(2 * batch_size if options.quick else 4 * batch_size)
    next(training("4 from the start", data, batch_size, options.device))  # compiles the kernels, not counted
    turns = [one_round(data, batch_size, options.device) for _ in range(rounds)]
    base = "4 from the start"
    ratios = {
        name: {cost: Spread.of(turn[name][cost] / turn[base][cost] for turn in turns) for cost in COSTS}
        for name in SCHEDULES
    }
    rows = [[name, *(by_cost[cost].text() for cost in COSTS), GOALS.get(name, "")] for name, by_cost in ratios.items()]
    title = f"training for {EPOCHS} epochs relative to 4 nodes from the start (min-max of n = {rounds})"
    print_table(title, ["", *COSTS, "goal"], rows)
    write("refinement", {"rounds": rounds, "epochs": EPOCHS, "ratios": ratios, "costs": turns}, device=options.device)


if __name__ == "__main__":
    main()
