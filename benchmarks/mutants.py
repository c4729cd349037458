"""Small defects, put into a copy of the project one at a time: does a test notice?

    python benchmarks/mutants.py              # all of them, about a quarter of an hour; ends with 1 if one survives
    python benchmarks/mutants.py schedulers   # those of one module

The list is written by hand: each mutant is a plausible slip in a place where a result would be wrong without an error.
A text that is no longer in its file, or is there twice, is an error: the mutant has to follow the code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("odenet", "search_spaces", "sweep", "tests", "docs", "benchmarks", "examples")
SECONDS = 400  # a mutant that is not done by then is one that hangs, which is noticed, too

# Where a module is, and the tests that are about it.
FILES = {
    "scheme": "odenet/integrators/scheme.py",
    "schemes": "odenet/integrators/schemes.py",
    "bases": "odenet/depth/bases.py",
    "discretisation": "odenet/depth/discretisation.py",
    "schedulers": "sweep/tuning/schedulers.py",
    "stopping": "sweep/tuning/stopping.py",
    "statistics": "sweep/report/statistics.py",
    "comparison": "sweep/report/inference/comparison.py",
    "power": "sweep/report/inference/power.py",
    "bands": "sweep/report/inference/bands.py",
    "results": "sweep/report/results.py",
    "trial_log": "sweep/execution/trial_log.py",
}
INTEGRATORS = ["integrators/test_schemes.py", "integrators/test_order.py", "integrators/test_integrate.py"]
TESTS = {
    "scheme": [f"tests/odenet/{name}" for name in (*INTEGRATORS, "integrators/test_gradients.py")],
    "schemes": [f"tests/odenet/{name}" for name in (*INTEGRATORS, "training/test_combinations.py")],
    "bases": [f"tests/odenet/depth/test_{name}.py" for name in ("bases", "projection_matrices")],
    "discretisation": [
        "tests/odenet/depth/test_bases.py",
        "tests/odenet/networks/test_refinement.py",
        "tests/odenet/training/test_cost.py",
    ],
    "schedulers": ["tests/sweep/tuning/test_schedulers.py"],
    "stopping": ["tests/sweep/tuning/test_stopping.py"],
    "statistics": ["tests/sweep/report/test_statistics.py", "tests/sweep/report/inference/test_comparison.py"],
    "comparison": ["tests/sweep/report/inference/test_comparison.py", "tests/sweep/report/inference/test_power.py"],
    "power": ["tests/sweep/report/inference/test_power.py"],
    "bands": ["tests/sweep/report/inference/test_bands.py"],
    "results": ["tests/sweep/report/test_report.py"],
    "trial_log": [f"tests/sweep/execution/test_{name}.py" for name in ("trial_log", "controller", "power_loss")],
}
TELLS = "        for observer in self._observers:\n            observer.stands(row, segment)\n"  # of the trial log


@dataclass(frozen=True)
class Mutant:
    module: str
    slip: str
    text: str
    instead: str


MUTANTS = [
    Mutant("scheme", "steps too short", "self.depth_time / self.steps", "self.depth_time / (self.steps + 1)"),
    Mutant("scheme", "reverse time reads forward", "1 - c if backward else c", "c if backward else c"),
    Mutant("scheme", "unstep goes forward", "stages, -course.size)", "stages, course.size)"),
    Mutant("scheme", "PolyNet's second slope sees x", "_combine(x if of_x else None,", "_combine(x,"),
    Mutant("scheme", "an inverse with the wrong sign", "-self.keep * self.add", "self.keep * self.add"),
    Mutant("scheme", "what is kept loses its factor", "keep * target + add * source", "target + add * source"),
    Mutant("scheme", "undone in forward order", "in reversed(self.shears(", "in list(self.shears("),
    Mutant("schemes", "RK4's weights", '"1/6 1/3 1/3 1/6"', '"1/6 1/3 1/4 1/4"'),
    Mutant("schemes", "RK4's last stage too early", '["0", "0", "1"]', '["0", "0", "1/2"]'),
    Mutant("schemes", "Heun's weights", '[[], ["1"]], "1/2 1/2"', '[[], ["1"]], "1/4 3/4"'),
    Mutant("schemes", "Ralston's stage", '["2/3"]', '["1/2"]'),
    Mutant("schemes", "the 3/8 rule's third stage", '["-1/3", "1"]', '["1/3", "1/3"]'),
    Mutant("schemes", "the consistent start is whole", "weight /= 2", "weight /= 1"),
    Mutant("schemes", "any start is consistent", "step == 0 and course.start is Start.consistent", "step == 0"),
    Mutant("schemes", "leapfrog by h", "course.size**self.power", "course.size"),
    Mutant("schemes", "LM's k on the wrong state", "course.size, k, 1 - k)", "course.size, 1 - k, k)"),
    Mutant(
        "schemes",
        "an inverse that may not exist",
        'SCHEMES[scheme].needs == "memory":',
        'SCHEMES[scheme].needs == "halves":',
    ),
    Mutant("schemes", "checkpoints of no steps", "checkpointed and scheme in ADAPTIVE", "checkpointed and False"),
    Mutant(
        "bases", "a step's end reads beyond", "-(-cells * (step + 1) // steps) - 1", "cells * (step + 1) // steps - 1"
    ),
    Mutant(
        "bases",
        "a single hat stays one",
        "max(2 * nodes - 1, 2)\n\n    def positions(self, nodes: int) -> list[Stage]:\n        if",
        "2 * nodes - 1\n\n    def positions(self, nodes: int) -> list[Stage]:\n        if",
    ),
    Mutant("bases", "elements share nodes", "_between(2 * element,", "_between(element,"),
    Mutant("bases", "a jump over a refined cell", "sqrt(initial_nodes // 2)", "sqrt(nodes // 2)"),
    Mutant("bases", "constants jump over refined cells", "sqrt(initial_nodes) *", "sqrt(nodes) *"),
    Mutant("bases", "hats too smooth", "sqrt(self.cells(nodes)) *", "1.0 *"),
    Mutant("bases", "variances left of their place", "(t - points[left]) /", "(points[left + 1] - t) /"),
    Mutant("bases", "a constant has a slope", "slope_NN -= slope_NN", "slope_NN += slope_NN"),
    Mutant("bases", "nodes mixed in half precision", "enabled=False", "enabled=True"),
    Mutant("bases", "a quadrature of too few points", "self.degree(nodes) + 1)", "max(self.degree(nodes), 1))"),
    Mutant("bases", "a kernel's layout is lost", ".permute(0, 1, 4, 2, 3)", ".permute(0, 1, 4, 2, 3).contiguous()"),
    Mutant(
        "discretisation", "steps do not follow cells", "self.course.steps * new_cells // cells", "self.course.steps"
    ),
    Mutant("discretisation", "a single node goes unread", "if nodes == 1:\n        return []\n    ", ""),
    Mutant("discretisation", "evaluations of one step", "self.course.steps * SCHEMES", "1 * SCHEMES"),
    Mutant("schedulers", "ASHA keeps one too many", "self._reduction < len(seen)", "self._reduction <= len(seen)"),
    Mutant("schedulers", "equals do not go on", "len(seen) - bisect_right(seen,", "len(seen) - bisect_left(seen,"),
    Mutant("schedulers", "stopped at the last epoch", "epoch < self._epochs and not", "epoch <= self._epochs and not"),
    Mutant("schedulers", "infinity goes on", "not math.isfinite(objective) or", "math.isnan(objective) or"),
    Mutant("schedulers", "a median of four", "FEWEST_OTHERS = 3", "FEWEST_OTHERS = 4"),
    Mutant("schedulers", "grace ends late", "epoch >= self._grace", "epoch > self._grace"),
    Mutant("schedulers", "the worst so far", "max(objective, self._best.get", "min(objective, self._best.get"),
    Mutant(
        "schedulers", "means of all but the last", "insort(others, self._sums", "others or insort(others, self._sums"
    ),
    Mutant("schedulers", "promoted too early", "len(seen) // self._reduction", "-(-len(seen) // self._reduction)"),
    Mutant("schedulers", "a promoted trial again", "self._reached[number] > rung", "self._reached[number] > rung + 99"),
    Mutant("schedulers", "an ended trial is promoted", "number in self._ended or", "False or"),
    Mutant("schedulers", "the lowest rung first", "in reversed(self.rungs)", "in self.rungs"),
    Mutant("schedulers", "a paused trial pauses again", "if pause > epoch)", "if pause >= epoch)"),
    Mutant("schedulers", "grace cut off", "max(1, round(config.grace", "max(1, int(config.grace"),
    Mutant(
        "schedulers",
        "brackets too small",
        "-(-(rungs + 1) * reduction**s // (s + 1))",
        "(rungs + 1) * reduction**s // (s + 1)",
    ),
    Mutant("schedulers", "an epoch twice", "if epoch > self._reached.get", "if epoch >= self._reached.get"),
    Mutant("stopping", "one beyond the limit", "value >= limit", "value > limit"),
    Mutant("stopping", "the target is passed, not reached", "best >= budget.target", "best > budget.target"),
    Mutant("stopping", "a plateau one too long", "_without_gain(rows) >= budget", "_without_gain(rows) > budget"),
    Mutant("stopping", "infeasible trials are gains", "Outcome.done and row.feasible and", "Outcome.done and"),
    Mutant("statistics", "a biased deviation", "ddof=1", "ddof=0"),
    Mutant("statistics", "ties are losses", "(1 + np.sign(seeds)) / 2", "(seeds > 0) * 1.0"),
    Mutant(
        "statistics",
        "draws weighed by seeds",
        "np.mean([np.mean(seeds) for seeds in sample])",
        "np.mean(np.concatenate(list(sample)))",
    ),
    Mutant("statistics", "seeds are not resampled", "* count_BD1).astype(int)", "* 1).astype(int)"),
    Mutant("statistics", "a 90 % interval", "LEVEL = 0.95", "LEVEL = 0.90"),
    Mutant("statistics", "Bonferroni for Holm", "(len(p_values) - rank) *", "len(p_values) *"),
    Mutant("statistics", "Holm may decrease", "max(largest, min(1.0,", "max(0.0, min(1.0,"),
    Mutant(
        "comparison",
        "0.75 is not enough",
        "(np.asarray(improvement) >= MEANINGFUL)",
        "(np.asarray(improvement) > MEANINGFUL)",
    ),
    Mutant("comparison", "0.25 is not enough", "improvement) <= 1 - MEANINGFUL", "improvement) < 1 - MEANINGFUL"),
    Mutant("comparison", "no P is asked for", "MEANINGFUL = 0.75", "MEANINGFUL = 0.0"),
    Mutant("comparison", "a p of 0.10", "ALPHA = 0.05", "ALPHA = 0.10"),
    Mutant(
        "comparison", "p without Holm", "holm([found.p for found in comparisons])", "[found.p for found in comparisons]"
    ),
    Mutant("comparison", "better although behind", "(np.asarray(delta) > 0) &", "(np.asarray(delta) > -9) &"),
    Mutant("comparison", "worse although ahead", "(np.asarray(delta) < 0) &", "(np.asarray(delta) < 9) &"),
    Mutant("comparison", "four draws decide", "DECIDES = 5", "DECIDES = 4"),
    Mutant("comparison", "five draws decide nothing", "found.draws < DECIDES", "found.draws <= DECIDES"),
    Mutant(
        "comparison",
        "one training set decides",
        "found.draws < DECIDES or found.conditional or",
        "found.draws < DECIDES or",
    ),
    Mutant(
        "comparison", "equivalent from above only", "(np.asarray(low) >= -EQUIVALENCE) &", "(np.asarray(low) >= -9) &"
    ),
    Mutant("comparison", "equivalent from below only", "(np.asarray(high) <= EQUIVALENCE)", "(np.asarray(high) <= 9)"),
    Mutant("comparison", "within two points", "EQUIVALENCE = 0.01", "EQUIVALENCE = 0.02"),
    Mutant(
        "comparison",
        "equivalent before better",
        "    if is_better(found.delta, p_holm, found.improvement):",
        "    if within:\n        return Verdict.equivalent\n    if is_better(found.delta, p_holm, found.improvement):",
    ),
    Mutant(
        "comparison",
        "images have no error",
        "within = float(np.var(images_N, ddof=1)) / images",
        "within = 0.0 * images",
    ),
    Mutant(
        "comparison",
        "no error of draws",
        "between = float(np.var(units, ddof=1)) *",
        "between = 1e-12 * float(np.var(units, ddof=1)) *",
    ),
    Mutant(
        "comparison",
        "overlap is ignored",
        "(1 / len(units) + overlap / (1 - overlap))",
        "(1 / len(units) + 0 * overlap)",
    ),
    Mutant("comparison", "the bootstrap from five draws on", "RESAMPLED = 10", "RESAMPLED = 5"),
    Mutant(
        "comparison", "a normal tail over few draws", "x, weights = _chi(units - 1)", "x, weights = _chi(10 * units)"
    ),
    Mutant("comparison", "Holm's bound of one family", "families * 2 / 2**draws", "2 / 2**draws"),
    Mutant("power", "verdicts below five draws", "found.draws >= DECIDES", "found.draws > 0"),
    Mutant(
        "power", "Bonferroni in simulations", "np.arange(p_BF.shape[1], 0, -1)", "np.full(p_BF.shape[1], p_BF.shape[1])"
    ),
    Mutant(
        "power",
        "the baseline has no error",
        "accuracies[:, 1:] - accuracies[:, :1]",
        "accuracies[:, 1:] - 0 * accuracies[:, :1]",
    ),
    Mutant(
        "power", "seeds are taken for draws", "float(np.var(means, ddof=1)) - share", "float(np.var(means, ddof=1))"
    ),
    Mutant("bands", "bands of the wrong ends", "(upper_R, found_R, lower_R)", "(lower_R, found_R, upper_R)"),
    Mutant("bands", "the quantile of k^2", "MEDIAN ** (1 / k_K)", "MEDIAN ** (1 / k_K**2)"),
    Mutant("bands", "to half of the trials", "k_K.max() <= n / 4", "k_K.max() <= n / 2"),
    Mutant("results", "lost runs count as chance", "*UNFINISHED, *LOST))\nWITHOUT", "*UNFINISHED))\nWITHOUT"),
    Mutant(
        "results", "a hopeless draw is dropped", "return over and not ranked", "return False and over and not ranked"
    ),
    Mutant("results", "a search cut short is hopeless", "asked <= len(ended) == len(sweep.trials)", "True"),
    Mutant("statistics", "one-sided bound", "min(1.0, 2 / 2**draws)", "min(1.0, 1 / 2**draws)"),
    Mutant(
        "trial_log", "an epoch reported twice is two", "if result.epoch <= row.epochs:", "if result.epoch < row.epochs:"
    ),
    Mutant("trial_log", "segments are not counted", "legs=row.legs + 1", "legs=row.legs"),
    Mutant(
        "trial_log",
        "a killed driver's GPUs are free",
        "seconds * gpus",
        "seconds",
    ),
    Mutant(
        "trial_log",
        "a lost trial runs for ever",
        "if row.outcome is Outcome.running:\n                lost",
        "if False:\n                lost",
    ),
    Mutant(
        "trial_log",
        "GPU time of the last epoch only",
        "gpu_seconds=row.gpu_seconds + max(0.0, gpu_seconds)",
        "gpu_seconds=max(0.0, gpu_seconds)",
    ),
    Mutant("trial_log", "the limit itself is too much", "footprint[name] <= limit", "footprint[name] < limit"),
    Mutant("trial_log", "robust as trained", 'if not table["trained"]', 'if table["trained"]'),
    Mutant(
        "trial_log",
        "told before it is written",
        f"self._note(row)\n        self._sync()\n{TELLS}",
        f"{TELLS.lstrip()}        self._note(row)\n        self._sync()\n",
    ),
    Mutant("trial_log", "told before the epoch is written", "        append_row(self.files.curves, curve)\n", ""),
    Mutant("trial_log", "half a row is read", "removed = cut_half_row(file)", "removed = 0"),
    Mutant(
        "trial_log",
        "an ending is not synced",
        f"self._note(row)\n        self._sync()\n{TELLS}",
        f"self._note(row)\n{TELLS}",
    ),
    Mutant("trial_log", "the ledger is believed before the curves", "or not row.outcome.ended:", "or False:"),
    Mutant("trial_log", "an id is not synced", "if row.legs == 1:", "if False:"),
]


def mutated(mutant: Mutant) -> str:
    """The source with the slip in it."""
    text = (ROOT / FILES[mutant.module]).read_text()
    if text.count(mutant.text) != 1:
        sys.exit(f"{FILES[mutant.module]} has {text.count(mutant.text)} times, not once: {mutant.text!r}")
    return text.replace(mutant.text, mutant.instead)


def passes(place: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    own = {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=place, env=os.environ | own, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    assert done.returncode in (0, 1, 2), done.stdout + done.stderr  # 2: it cannot even be imported
    return done.returncode == 0


def main(modules: list[str]) -> int:
    sources = {mutant: mutated(mutant) for mutant in MUTANTS}
    chosen = [mutant for mutant in MUTANTS if not modules or mutant.module in modules]
    survivors = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for folder in COPIED:
            shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ROOT.glob("*.*"):
            if file.is_file():
                shutil.copy(file, place)
        for module in dict.fromkeys(mutant.module for mutant in chosen):
            assert passes(place, TESTS[module]), f"the tests of {module} fail without a mutant"
        for mutant in chosen:
            file, started = place / FILES[mutant.module], time.monotonic()
            file.write_text(sources[mutant])
            survived = passes(place, TESTS[mutant.module])
            shutil.copy(ROOT / FILES[mutant.module], file)
            if survived:
                survivors.append(mutant)
            verdict = "SURVIVES" if survived else "killed"
            print(f"{verdict:8} {time.monotonic() - started:5.0f} s  {mutant.module}: {mutant.slip}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return len(survivors) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
