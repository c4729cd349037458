"""Errors of every network, gradient and arithmetic against float64, at initialisation and after 20 iterations.

A row has the median over seeds of the relative error of the loss' gradients, all parameters as one vector, against the
same gradient mode in float64 on the CPU; `in all` is against the exact gradient, so what an approximate mode costs.
A single ReLU that flips between two arithmetics moves a gradient by about 1e-3.

    python benchmarks/bench_errors.py [--quick] [--device cuda]
"""

import statistics
from collections import defaultdict
from dataclasses import replace

import torch
from gpu_accuracy import errors
from gpu_case import FULL, TOY, arithmetics
from measure import parser, print_table, write

KINDS = ("logits", "gradients", "gradients_in_all")


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    size = replace(TOY if options.quick else FULL, device=options.device, seeds=options.rounds or 3, images=8, width=8)
    found: dict[tuple[str, str], dict[tuple[str, int], list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(size.seeds):
        for case in errors(size, seed):
            row, column = (case.labels[key] for key in ("network", "gradient")), case.labels["arithmetic"]
            found[tuple(row)][column, case.labels["iterations"]].append(case.measure())  # type: ignore[index]
    columns = [(arithmetic, count) for arithmetic in arithmetics(options.device) for count in size.iterations]
    cells = [[*row, *(_text(measured[column]) for column in columns)] for row, measured in found.items()]
    heads = ["network", "gradient", *(f"{arithmetic}, {count}" for arithmetic, count in columns)]
    print_table(f"logits / gradients / gradients in all, median of n = {size.seeds} seeds", heads, cells)
    write("errors", {"heads": heads, "rows": cells, "seeds": size.seeds}, device=options.device)


def _text(measured: list[dict[str, float]]) -> str:
    if "refused" in measured[0]:
        return "refused"
    return " / ".join(f"{statistics.median(each[kind] for each in measured):.0e}" for kind in KINDS)


if __name__ == "__main__":
    main()
