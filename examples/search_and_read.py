"""A small search from Python, and its results: what `sweep search` does, for a notebook or a script.

Run it with `python examples/search_and_read.py NAME`; it takes a minute and writes runs/NAME/.
"""

import sys

from odenet import Training
from sweep import load_config, read_best, read_trials, search


def main(name: str, *words: str) -> None:
    # The words are those of the command line; any other key has its default.
    config = load_config("space=smoke", "search.trials=4", "training.epochs=4", "model.width=4", *words)
    directory = search(config, name)

    # One row per trial. Only trials that are done have an objective that counts.
    trials = read_trials(directory)
    for trial in trials:
        shown = "-" if trial.objective is None else f"{trial.objective:.3f}"
        print(f"trial {trial.number}: {trial.outcome.value}, objective {shown}, {trial.parameters}")

    # The best one is a complete experiment: train it again, or further, without the search.
    best = read_best(directory)
    print(f"best is trial {best.provenance['trial']}, learning rate {best.experiment.optim.lr:.4f}")
    *_, last = Training(best.experiment)
    print(f"trained again, val accuracy {last.metrics['val/accuracy']:.3f} after {last.epoch} epochs")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["example"])
