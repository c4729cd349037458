"""Wrong input by class: what is changed in a run directory, command lines, and what the message must say."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sweep.records.run_directory import JOURNAL

Change = Callable[[Path], object]

SEARCH, RESUME, EXTEND, FINAL, REPLAY = "search y", "resume x", "extend x search.more=2", "final x", "replay x"
LEDGER, CURVES, TRIALS, TABLES = "ledger.csv", "curves.csv", "trials.csv", "manifestations.csv"
PROGRESS, ORIGIN, CONFIG, BEST, STAGE = "progress.json", "origin.json", "config.yaml", "best.yaml", "stage.json"
PBT, DEPTH, TWO = "search.scheduler=pbt", "search.scheduler=depth_asha", "search.objectives=[accuracy,gflops]"
ENQUEUE_BEST, ENQUEUE_TRIALS = (f"search y space=smoke search.enqueue=[runs/x/{file}]" for file in (BEST, TRIALS))
TAG = "!!python/object/apply:os.mkdir [hacked]"
LONG = 400 * "a"


class Hack:
    """Makes a directory where it is unpickled."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, ("hacked",)


PICKLE = pickle.dumps(Hack())
PICKLED_LINES = pickle.dumps(Hack(), protocol=0)  # which is text of several lines


def put(file: str, content: str | bytes) -> Change:
    def change(directory: Path) -> None:
        (directory / file).parent.mkdir(exist_ok=True)
        (directory / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def sub(file: str, before: str, after: str) -> Change:
    def change(directory: Path) -> None:
        text = (directory / file).read_text()
        assert before in text, text
        (directory / file).write_text(text.replace(before, after, 1))

    return change


def cut(file: str, keep: float) -> Change:
    def change(directory: Path) -> None:
        content = (directory / file).read_bytes()
        (directory / file).write_bytes(content[: int(keep * len(content))])

    return change


def progress(**values: Any) -> Change:
    return put(PROGRESS, json.dumps({"seconds": 5.0, "finished": False} | values))


def provenance(**values: Any) -> Change:
    def change(directory: Path) -> None:
        content = yaml.safe_load((directory / BEST).read_text())
        content["provenance"] |= values
        (directory / BEST).write_text(yaml.safe_dump(content))

    return change


def gone(file: str) -> Change:
    return lambda directory: (directory / file).unlink()


def directory_at(file: str) -> Change:
    def change(directory: Path) -> None:
        (directory / file).unlink()
        (directory / file).mkdir()

    return change


def directory_put(file: str) -> Change:
    return lambda directory: (directory / file).mkdir()


def zeros_behind(file: str) -> Change:
    def change(directory: Path) -> None:
        with (directory / file).open("ab") as end:
            end.write(bytes(4096))

    return change


def both(first: Change, second: Change) -> Change:
    def change(directory: Path) -> None:
        first(directory)
        second(directory)

    return change


def no_change(_: Path) -> None:
    """The words are what is wrong."""


def words(*lines: tuple[str, str]) -> list[tuple[Change, tuple[str, ...], tuple[str, ...]]]:
    """Lines of `sweep search y`, each with what its message says."""
    return [(no_change, (f"{SEARCH} {line}",), (needle,)) for line, needle in lines]


GOING_ON = (RESUME, EXTEND)
GROWING = (LEDGER, CURVES, TABLES, JOURNAL)
# What a kill or a loss of power leaves: the sweep goes on.
MENDED: dict[str, Change] = {
    **{f"{file} gone": gone(file) for file in GROWING},
    **{f"{file} empty": put(file, "") for file in GROWING},
    **{f"{file} cut": cut(file, 0.5) for file in GROWING},
    **{f"{file} and zeros": zeros_behind(file) for file in GROWING},
}
READ = (CONFIG, LEDGER, CURVES, TABLES, PROGRESS, JOURNAL)

# class: what is changed in the run directory, command lines, what the message says
WRONG: dict[str, list[tuple[Change, tuple[str, ...], tuple[str, ...]]]] = {
    "type": [
        *words(
            ("search.sampler=[tpe]", "search.sampler=[tpe]: Value ['tpe'] (list) is not a valid input"),
            ("search.objectives=accuracy", "search.objectives=accuracy: Invalid value assigned: str is not"),
            ("search.constraints=5", "search.constraints=5: Invalid type assigned: int"),
            ("search.budget.hours=soon", "search.budget.hours=soon: Value 'soon' of type 'str' could not be converted"),
            ("search.enqueue=best.yaml", "search.enqueue=best.yaml: Invalid value assigned: str is not a ListConfig"),
            ("search.enqueue=[null]", "search.enqueue[0]: Invalid type assigned: NoneType is not a subclass of str"),
            ("search.pbt.integrator=maybe", "search.pbt.integrator=maybe: Value 'maybe' is not a valid bool"),
        ),
        (no_change, ("extend x search.more=many", "resume x search.budget.plateau=1.5"), ("converted to Integer",)),
        (no_change, ("replay x replay.workers=all",), ("replay.workers=all: Value 'all'", "to Integer")),
        (progress(seconds="long"), GOING_ON, (PROGRESS, "is damaged", "Remove it; only the wall clock is lost")),
        (progress(finished="no"), (*GOING_ON, REPLAY), (PROGRESS, "is damaged", "finished='no'")),
        (put(ORIGIN, "[1]"), GOING_ON, (ORIGIN, "it must be a mapping. search.accept_changes=true writes it anew")),
        (sub(LEDGER, ",0.5,2,", ",half,2,"), GOING_ON, (LEDGER, "line 2, column objective: 'half' cannot be read")),
        (sub(CURVES, "2,0,1,", "2,0,one,"), GOING_ON, (CURVES, "line 2, column epoch: 'one' cannot be read")),
        (provenance(parameters={"optim.lr": "x"}), (ENQUEUE_BEST,), ("search.enqueue=", "the text 'x' is not")),
    ],
    "range": [
        *words(
            ("search.random_share=1.5", "search.random_share=1.5: a fraction of the trials, from 0 to 1"),
            ("search.constraints.latency_ms=0", "search.constraints.latency_ms=0.0: must be above 0, or null"),
            ("search.budget.target=90", "search.budget.target=90.0: an accuracy, at most 1"),
            ("search.pbt.quantile=0.6", "search.pbt.quantile=0.6: above 0 and at most 0.5"),
            ("search.reduction=1", "search.reduction=1: must be from 2 to 100"),
            ("search.timeout_minutes=nan", "search.timeout_minutes=nan: must be above 0, or null"),
            ("search.timeout_minutes=1e9", "or null for no limit; at most a year, 527040"),
            ("evaluate.manifestation_images=0", "evaluate.manifestation_images=0: must be at least 1"),
            ("evaluate.conditions=[]", "evaluate.conditions: at least one, each once; possible are clean"),
            ("evaluate.conditions=[rain]", "rain"),
            ("evaluate.corruptions=[rain]", "rain"),
            ("evaluate.corruptions=[fog,fog]", "evaluate.corruptions: at least one, each once"),
            ("evaluate.severities=[0]", "evaluate.severities=[0]: at least one of 1 to 5"),
            ("evaluate.severities=[1,1]", "each once"),
            ("evaluate.attack.images=0", "attack.images=0: must be at least 1"),
            ("evaluate.attack.linf_255=[300]", "every epsilon must be positive and at most 255"),
            ("evaluate.attack.attacks=[hammer]", "hammer"),
            ("evaluate.cache_dir=", "evaluate.cache_dir is empty"),
            ("study.draws=[-1]", "study.draws=[-1]: each must be from 0 to 2147483647"),
        ),
        (no_change, ("extend x search.more=0", "extend x"), ("How many trials more? `sweep extend NAME search.more=",)),
        (no_change, ("extend x search.more=-2",), ("search.more=-2: must be from 0",)),
        (progress(seconds=-1), GOING_ON, (PROGRESS, "is damaged", "seconds=-1.0")),
        (provenance(parameters={"optim.lr": 9.0}), (ENQUEUE_BEST,), (BEST, "optim.lr: 9.0 is not a number from")),
        (sub(TRIALS, '""optim.lr"": ', '""optim.lr"": 5'), (ENQUEUE_TRIALS,), (TRIALS, "optim.lr: 5", "is not")),
    ],
    "typo": [
        *words(
            ("search.sampler=tpee", "expected one of [tpe, random, gp, cmaes, nsga2, grid]"),
            ("search.scheduler=ahsa", "expected one of [none, asha, hyperband, median, depth_asha, pbt]"),
            ("search.objectives=[acuracy]", "expected one of [accuracy, gflops, rate_evaluations, robustness]"),
            ("search.constraints.latency=5", "did you mean search.constraints.latency_ms"),
            ("search.budgte.hours=5", "did you mean search.budget.hours"),
            ("search.random_shar=0.5", "did you mean search.random_share"),
            ("search.enqueue=[best.yml2]", "the name of a best.yaml or of a trials.csv is needed"),
            ("search.enqueue=[bset.yaml]", "search.enqueue=bset.yaml: bset.yaml cannot be read"),
        ),
        (no_change, ("resum x",), ("no stage 'resum'", "did you mean resume?")),
        (no_change, ("resume y", "extend y search.more=2", "replay y"), ("There is no sweep y in", "there are: x")),
        (sub(CONFIG, "  random_share:", "  random_shrae:"), (*GOING_ON, FINAL, REPLAY), ("random_shrae",)),
        (sub(LEDGER, ",done,", ",doen,"), GOING_ON, (LEDGER, "column outcome: 'doen'")),
        (put(STAGE, '{"stage": "serach"}'), (RESUME,), (STAGE, "is damaged", "'serach' is not a valid")),
        (sub(TRIALS, "optim.lr", "optim.rl"), (ENQUEUE_TRIALS,), ("search.enqueue=", "optim.lr is missing")),
    ],
    "contradiction": [
        *words(
            (TWO + " search.scheduler=asha", "search.scheduler=asha with 2 objectives", ),
            (TWO + " search.sampler=gp", "search.sampler=gp with 2 objectives: random, tpe, nsga2 can be used"),
            (TWO + " search.budget.plateau=3", "search.budget.plateau and search.budget.target need one objective"),
            ("search.objectives=[gflops]", "accuracy and, each once, any of gflops, rate_evaluations, robustness"),
            ("search.sampler=grid", "search.sampler=grid: optim.lr", ),
            ("search.sampler=gp", "fix refinement.count, or use random, tpe or nsga2"),
            ("search.sampler=nsga2 " + DEPTH, "use random, tpe or grid"),
            ("search.budget.money=5", "search.budget.money=5.0 needs search.budget.gpu_hour_price"),
            ("space=resnet " + DEPTH, "it is a ResNet, its depth cannot change"),
            (DEPTH + " space.fix.refinement.count=1", "refinement.count is set, but"),
            (DEPTH + " space=smoke refinement.at=[2]", "refinement.at is set, but search.scheduler=depth_asha decides"),
            (DEPTH + " search.grace=1", "choose a smaller grace, more epochs, or scheduler=none"),
            (PBT + " search.trials=1", "search.scheduler=pbt with search.trials=1: a population has at least 2"),
            (PBT + " search.random_share=0.5", "all members of a population exchange"),
            ("search.more=3", "search.more=3 is for `sweep extend NAME`"),
            (
                "search.objectives=[accuracy,robustness] space=smoke evaluate.schemes=[euler] "
                "evaluate.step_factors=[1]",
                "has no other manifestation than the trained one; leave it out, or add to evaluate.schemes or",
            ),
        ),
        *[
            (no_change, tuple(f"{line} {key}" for line in ("search y", "plan", "study y")), (f"{key} would have no",))
            for key in ("data.portion=trainval", "training.seed=7")
        ],
        (no_change, ("study y data.draw=1",), ("data.draw=1 would have no effect: a study has the draws study.draws",)),
        (no_change, ("study y space=resnet",), ("space.name=resnet would have no effect", "study.families")),
        (
            no_change,
            tuple(f"{stage} x training.epochs=3" for stage in ("status", "report", "ui")),
            ("training.epochs=3 would have no effect on `sweep", "possible are runtime.runs_dir=DIR"),
        ),
        (no_change, ("resume x search.more=3", "final x search.more=3"), ("is for `sweep extend NAME`",)),
        (
            no_change,
            (
                *("search final", "search x/final", "search x/export", "study Default", "search best.yaml"),
                *("search z/Model.YML", "study ray"),
            ),
            ("is not possible", "means a file or directory that sweeps have of their own, as attacked, checkpoints,"),
        ),
        (no_change, ("resume x search.trials=9", f"{EXTEND} search.sampler=gp"), ("what is learned is fixed",)),
        (sub(CONFIG, "scheduler: none", "scheduler: pbt"), (EXTEND,), ("a population cannot be extended",)),
        (sub(ORIGIN, '"data": "', '"data": "0'), GOING_ON, ("x began with something else: the data's hash was 0",)),
        (sub(JOURNAL, '"study_name":"x"', '"study_name":"z"'), GOING_ON, (JOURNAL, "holds the study of z, not of x")),
        (sub(JOURNAL, '"directions":[2]', '"directions":[1]'), GOING_ON, ("a study to minimize", "another name")),
        (sub(JOURNAL, '"trial_id":"', '"trial_id":"0'), GOING_ON, (JOURNAL, "its trial 0 is not", "of the ledger")),
    ],
    "unicode and control characters": [
        *words(
            ("search.sämpler=tpe", "'search.sämpler=tpe' cannot be read: write KEY=VALUE"),
            ("search.sampler=\u202etpe", r"'search.sampler=\u202etpe' cannot be read"),
            ("search.trials=\u0664", "cannot be read: write KEY=VALUE"),
            ("search.enqueue=['\x1b[31mred.yaml']", r"search.enqueue='\x1b[31mred.yaml' is no path: it has control"),
            ("search.enqueue=['a\x00.csv']", r"search.enqueue='a\x00.csv' is no path"),
            ("runtime.runs_dir='a\x00b'", r"runtime.runs_dir='a\x00b' is no path"),
            ("runtime.runs_dir='\udcff'", r"runtime.runs_dir='\udcff' is no path"),
            ("runtime.data_dir='a\nb'", r"runtime.data_dir='a\nb' is no path"),
            ("tracking.uri='http://\x1b[2J'", "must be the address of an MLflow server"),
        ),
        (no_change, ("resume x\x00", "extend \u202ex", "replay \x1b[2J", "final ..\r"), ("is not possible: letters",)),
        (no_change, ("final a\x00.yaml", "final \udcff\x1b.yaml"), ("cannot be read",)),
        (put(PROGRESS, b"\xff\xfe{}"), GOING_ON, (PROGRESS, "is damaged")),
        (put(LEDGER, b"\xef\xbb\xbfschema,\n"), GOING_ON, (LEDGER, "the columns must be schema")),
        (sub(CONFIG, "name: smoke", 'name: "\\e[2J"'), (*GOING_ON, FINAL), (r"space.name=\x1b[2J is no search space",)),
        (put(TRIALS, "\x00" * 50), ("status", "status x", "report x", FINAL), (TRIALS, "the columns must be")),
    ],
    "huge values": [
        *words(
            ("search.trials=1e400", "search.trials=1e400: Value 'inf'"),
            ("search.budget.hours=1e400", "search.budget.hours=inf: must be above 0, or null"),
            ("search.seed=99999999999999999999", "must be from 0 to 2147483647"),
            (f"search.constraints.parameters={10**400}", "must be above 0, or null"),
            (f"search.budget.plateau={10**400}", "must be above 0, or null"),
            ("search.constraints.memory_mib=inf", "search.constraints.memory_mib=inf: must be above 0"),
            ("runtime.resources.cpus=99999999999999999999", "a trial needs at least 1, at most 100000"),
            ("runtime.resources.gpus=1e20", "runtime.resources.gpus=1e+20: possible are 0"),
            ("cluster.cpus=99999999999999999999", "or null for what this machine has; at most 100000"),
            ("evaluate.batch_size=99999999999999999999", "must be at least 1, at most 1e6"),
            (f"search.enqueue=[{LONG}.csv]", "is too long: at most 1000 bytes, each name in it 255"),
            (f"runtime.runs_dir={LONG}", "is too long: at most 1000 bytes, each name in it 255"),
            (f"data=cifar10 runtime.data_dir={3000 * 'a/'}", "is too long: at most 1000 bytes"),
        ),
        (no_change, (f"extend x search.more={10**30}",), ("must be from 0 to 1000000",)),
        (put(PROGRESS, '{"seconds": 1' + 400 * "0" + ', "finished": false}'), GOING_ON, (PROGRESS, "is damaged")),
        (progress(seconds=float("inf")), GOING_ON, (PROGRESS, "is damaged", "seconds=inf")),
        *[(put(file, 100_000 * "["), GOING_ON, (file, "is damaged")) for file in (PROGRESS, ORIGIN)],
        (put(CONFIG, 5_000 * "["), (*GOING_ON, FINAL, "evaluate x"), (CONFIG, "cannot be read", "recursion")),
        (sub(LEDGER, '{""', 50_000 * "["), GOING_ON, (LEDGER, "column parameters: '[[[[")),
        (sub(TRIALS, '{""', 50_000 * "["), ("status x", FINAL, "report x"), (TRIALS, "column parameters: '[[[[")),
        (sub(LEDGER, ",12,", f",{5000 * '9'},"), GOING_ON, (LEDGER, "column rate_evaluations: '999")),
    ],
    "path tricks": [
        *words(
            ("search.enqueue=[/etc/passwd]", "search.enqueue=/etc/passwd: the name of a best.yaml"),
            ("search.enqueue=[../../nope.csv]", "search.enqueue=../../nope.csv: ../../nope.csv cannot be read"),
            ("search.enqueue=['']", "search.enqueue='' is empty"),
            ("search.enqueue=[runs]", "search.enqueue=runs: the name of"),
            ("runtime.runs_dir=/dev/null", "The run directory /dev/null/y cannot be made"),
            ("runtime.data_dir=", "runtime.data_dir='' is empty"),
            ("tracking.uri=file:///etc/passwd", "must be the address of an MLflow server"),
            ("tracking.uri=http://", "must be the address of an MLflow server"),
        ),
        (
            no_change,
            ("resume ..", "extend ../x search.more=2", "replay x/../x", "resume /x", "final x//"),
            ("is not possible: letters, digits",),
        ),
        (no_change, ("resume x/y", "extend x/y search.more=2"), ("There is no sweep x/y in",)),
        (no_change, tuple(f"{one} x runtime.runs_dir=/dev/null" for one in ("resume", "report")), ("there are: none",)),
        (no_change, ("final /dev/../best.yaml", "final runs/x/../../b.yaml"), ("cannot be read", "No such file")),
        (provenance(sweep="../../etc"), (f"final runs/x/{BEST}",), ("is not possible", "at most 64")),
        *[(directory_at(file), GOING_ON, (file, "s a directory")) for file in (LEDGER, ORIGIN, PROGRESS, JOURNAL)],
    ],
    "damaged files": [
        *[(put(file, ""), GOING_ON, (file, "is damaged")) for file in (PROGRESS, ORIGIN, CONFIG)],
        *[(cut(file, 0.5), GOING_ON, (file, "is damaged")) for file in (PROGRESS, ORIGIN)],
        (put(JOURNAL, '{"op_code": 99}\n{}\n'), GOING_ON, (JOURNAL, "is damaged")),
        (put(JOURNAL, "no JSON\n{}\n"), GOING_ON, (JOURNAL, "is damaged")),
        *[(put(file, "garbage"), GOING_ON, (file, "'garbage' is no row, nor")) for file in (LEDGER, CURVES, TABLES)],
        (sub(CURVES, "\n2,0,2,", '\n2,0,"2,'), GOING_ON, (CURVES, "line 3: '2,0,", "is no row, nor")),
        (sub(CURVES, "\n2,0,2,", "\n1,0,2,"), (*GOING_ON, REPLAY, "report x"), (CURVES, "line 3: schema '1'")),
        (sub(CURVES, "\n2,0,2,", "\n2,0,"), (*GOING_ON, REPLAY, "report x"), (CURVES, "line 3:", "cells where")),
        (put(TABLES, "a,b\n1,2\n"), (*GOING_ON, "report x"), (TABLES, "the columns must be schema, number, scheme")),
        (put("rows.csv", "a,b\n"), ("report x",), ("rows.csv", "the columns must be")),
        (put(BEST, "schema: 2"), ("report x", ENQUEUE_BEST, f"final runs/x/{BEST}"), (BEST, "is no best.yaml")),
        (sub(CONFIG, "model:", "modle:"), (*GOING_ON, FINAL, REPLAY), (CONFIG, "is damaged: it needs the keys model")),
        (put("study.yaml", "a: 1"), (*GOING_ON, FINAL), ("study.yaml", "is damaged: it needs the keys model")),
        (put("final/progress.json", "{"), (*GOING_ON[:1], FINAL), ("final/progress.json", "is damaged")),
        (put("final/ledger.csv", "garbage"), (FINAL,), ("final/ledger.csv", "line 1: 'garbage' is no row")),
        (directory_put("outbox.jsonl"), (*GOING_ON, "status x"), ("outbox.jsonl cannot be read", "s a directory")),
        (put("mlflow.db", "no database"), ("ui x", "deliver x"), ("mlflow.db is damaged", "`sweep deliver x`")),
        (put(STAGE, "{"), (RESUME,), (STAGE, "is damaged", "one of study, search, final, sensitivity; or remove it")),
        (both(put("candidates.yaml", "schema: 2"), progress(finished=True)), (FINAL,), ("candidates.yaml", "the keys")),
    ],
    "pickles": [
        *[(put(file, PICKLE), GOING_ON, (file,)) for file in (*READ, ORIGIN)],
        *[(put(file, PICKLED_LINES), GOING_ON, (file,)) for file in READ],
        (put(TRIALS, PICKLE), (FINAL, REPLAY, "status x", "report x", ENQUEUE_TRIALS), (TRIALS, "cannot be read")),
        (put(BEST, PICKLE), (ENQUEUE_BEST, "report x", f"final runs/x/{BEST}"), (BEST, "cannot be read as YAML")),
        (put("study.yaml", PICKLE), GOING_ON, ("study.yaml", "cannot be read")),
        *[(put(file, TAG), (*GOING_ON, FINAL), (file, "determine a constructor")) for file in (CONFIG, "study.yaml")],
        (put(BEST, TAG), (ENQUEUE_BEST, "report x", f"final runs/x/{BEST}"), (BEST, "determine a constructor")),
    ],
}  # fmt: skip
