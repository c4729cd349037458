"""What a user types: wrong words are refused before anything starts; help, configuration and completion answer."""

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from odenet.data.config import DataSet
from search_spaces import SPACES
from sweep.cli.commands import STAGES
from sweep.cli.completion import candidates
from sweep.cli.parse import help_text
from sweep.config.compose import known_keys
from sweep.errors import WorkError
from tests.sweep.sweep_command import Command, assert_refused, in_empty_directory


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


# --- the words of the command line ------------------------------------------------------------------------------------

BIG = "1" + 400 * "0"
KEYS = "keys begin with model, data, optim, refinement, regularization, training, runtime, space, search, final"
NAME = "letters, digits, '.', '_' and '-'"

# command line: what its message says
WRONG_WORDS: dict[str, tuple[str, ...]] = {
    # stages, names, options
    "sarch x": ("no stage 'sarch'", "did you mean search?", "plan, doctor, search, resume"),
    "--cfg job": ("no stage '--cfg'", "Stages are plan"),
    "-sc install=tcsh": ("-sc install=tcsh", "bash, zsh, fish"),
    "search": ("`sweep search` needs a name", "sweep search NAME [KEY=VALUE ...]"),
    "search a b": ("'b' is one name too many, or lacks its `=`",),
    "plan x y": ("'y' is one name too many",),
    "search x --force": ("no option --force", "--help, --cfg job, --config-dir DIR and --config-name NAME are"),
    "search x --config-dir": ("--config-dir needs a value: --config-dir DIR --config-name NAME",),
    "search x -cn": ("--config-name needs a value",),
    "help sarch": ("no stage 'sarch'", "did you mean search?"),
    "status x --csv --json": ("--csv --json: one of --verify, --wide, --csv and --json at a time",),
    "final x --csv": ("--csv belongs to `sweep status NAME`, not to `sweep final`",),
    "status x --figures out": ("--figures belongs to `sweep report NAME`, not to `sweep status`",),
    "status x --trial seven": ("--trial needs a number: sweep status NAME --trial 7.",),
    "status --trial 7": ("`sweep status` needs a name",),
    "report x --figures": ("--figures needs a directory: sweep report NAME --figures DIR.",),
    "report --figures out": ("`sweep report` needs a name",),
    "status x --again": ("--again belongs to `sweep final NAME` and `sweep extend NAME`, not to `sweep status`",),
    "final x --verify": ("--verify belongs to `sweep status NAME`, not to `sweep final`",),
    "final --again": ("`sweep final` needs a name",),
    "search x --cfg hydra": ("--cfg hydra", "only `--cfg job` is possible"),
    "search ../x": ("'../x' is not possible", NAME),
    "search a/b/c": ("'a/b/c' is not possible", "STUDY/SWEEP"),
    "search /abs": ("'/abs' is not possible", NAME),
    "search .hidden": ("'.hidden' is not possible",),
    "search naïve": ("'naïve' is not possible", NAME),
    "search \x1b[31mred\n": (r"'\x1b[31mred\n' is not possible",),
    "search " + 65 * "x": ("is not possible", "at most 64"),
    "study a/b": ("'a/b' is a sweep's within a study", "a study's own name has no '/'"),
    "status ../..": ("'../..' is not possible",),
    "status nope": ("There is no sweep nope in", "there are: none"),
    "final nope": ("There is no sweep nope in", "there are: none"),
    "evaluate nope": ("There is no sweep nope in", "there are: none"),
    "export nope format=onnx": ("There is no sweep nope in", "there are: none"),
    "search x format=onnx": ("format=onnx: format is no key", "did you mean export.format?"),
    "report nope": ("There is no sweep nope in", "there are: none"),
    "ui nope": ("There is no MLflow store", "run `sweep search nope` first"),
    # keys
    "search x model.widht=4": ("model.widht=4: model.widht is no key", "did you mean model.width"),
    "search x +model.widht=4": ("+model.widht=4: model.widht is no key", "did you mean model.width"),
    "search x ++model.widht=4": ("++model.widht=4: model.widht is no key", "did you mean model.width"),
    "search x zzz=4": ("zzz=4: zzz is no key", KEYS),
    "search x lr=4": ("lr=4: lr is no key; did you mean optim.lr?",),
    "search x sensitivity.lr_factors=[0,1]": (
        "sensitivity.lr_factors=[0.0, 1.0]: from 0.000976562 to 1024, each once",
    ),
    "sensitivity nope": ("There is no sweep nope in",),
    "search x =4": ("=4: nothing is no key", KEYS),
    "search x hydra.run.dir=y": ("hydra.run.dir is no key", KEYS),
    "search x model.\udcff\x07=4": (r"model.\udcff\x07=4", "write KEY=VALUE"),
    "search x ~model.width": ("~model.width: keys cannot be removed", "write model.width=VALUE"),
    "search x +model.width=4": ("+model.width=4: model.width is there already", "write model.width=VALUE"),
    "search x data@model=digits": ("data@model=digits", "neither + nor @ are possible: write data=VALUE"),
    "search x model.width=4=5": ("'model.width=4=5' cannot be read: write KEY=VALUE",),
    "search x model.width={": ("'model.width={' cannot be read: write KEY=VALUE",),
    "search x model.width=1,2": ("model.width=1,2: one value is needed", "space.range.KEY=[a,b]"),
    "search x model.width=range(1,3)": ("model.width=range(1,3): one value is needed",),
    # groups
    "search x space=resent": ("space=resent is not possible; space can be bottleneck_resnet, continuous, ",),
    "search x data=cifar11": ("data=cifar11 is not possible; data can be cifar10, cifar100, digits",),
    "search x cluster=kube": ("cluster=kube is not possible; cluster can be address, local",),
    "search x space=null": ("space=null is not possible; space can be bottleneck_resnet, continuous",),
    "search x data=[digits,cifar10]": ("data=[digits,cifar10] is not possible; data can be",),
    # types
    "search x model.width=wide": ("model.width=wide", "'wide'", "could not be converted to Integer"),
    "search x model.width=4.5": ("model.width=4.5", "could not be converted to Integer"),
    "search x model.width=": ("model.width=:", "could not be converted to Integer"),
    "search x model.width=???": ("missing mandatory value: width",),
    "search x model.width=${foo}": ("model.width", "Interpolation key 'foo' not found"),
    "search x model=5": ("model=5", "int is not a subclass of ModelConfig"),
    "search x model={foo:3}": ("model.foo", "Key 'foo' not in 'ModelConfig'"),
    "search x model.scheme=rk5": ("model.scheme=rk5", "expected one of [euler, midpoint, heun, ralston, rk4, rk4_38, "),
    "search x search.sampler=gpp": ("search.sampler=gpp", "expected one of [tpe, random, gp, cmaes, nsga2, grid]"),
    "search x data.dataset=cifar11": ("data.dataset=cifar11", "expected one of [digits, cifar10"),
    "search x evaluate.schemes=[euler,leap]": ("evaluate.schemes[1]", "'leap'", "expected one of [euler"),
    "search x evaluate.schemes=euler": ("evaluate.schemes=euler", "not a ListConfig"),
    f"search x optim.lr={BIG}": (f"optim.lr={BIG}", "int too large"),
    # ranges
    "search x model.width=0": ("model.width=0: must be from 1 to 4096",),
    "search x optim.momentum=nan": ("optim.momentum=nan: must be at least 0 and less than 1",),
    "search x optim.lr=0.1": (
        "optim.lr=0.1 would have no effect, space=continuous searches it.",
        "space.fix.optim.lr=",
    ),
    "search x space=leapfrog model.scheme=rk4": (
        "space=leapfrog fixes it: leapfrog.",
        "space=NAME chooses another family",
    ),
    "search x search.trials=0": ("search.trials=0: must be from 1 to 1000000",),
    "search x search.concurrency=0": ("search.concurrency=0: must be from 1",),
    "search x search.grace=0": ("search.grace=0.0: a fraction of the epochs",),
    "search x final.seeds=0": ("final.seeds=0: must be from 1 to 1000",),
    "search x evaluate.step_factors=[]": ("evaluate needs schemes, and step_factors above 0",),
    "search x evaluate.batch_size=0": ("evaluate.batch_size=0: must be at least 1, at most 1e6",),
    "search x tracking.port=65535": ("tracking.port=65535: must be from 1 to 65534",),
    "search x tracking.uri=ftp://h": ("tracking.uri=ftp://h: must be the address of an MLflow server",),
    "search x cluster.cpus=0": ("cluster.cpus=0: at least 1, or null",),
    "search x runtime.resources.gpus=1.5": ("runtime.resources.gpus=1.5: possible are 0, a share", "whole numbers"),
    "search x runtime.runs_dir=": ("runtime.runs_dir is empty: name the directory",),
    "study x study.families=[]": ("study.families=[]: at least one, each once",),
    "study x study.draws=[1,1]": ("study.draws=[1, 1]: at least one, each once",),
    "study x study.families=[vgg]": ("study.families has vgg; possible are resnet, continuous",),
    # the space
    "search x space.name=foo": ("space.name=foo is no search space; possible are resnet, continuous",),
    "search x space.fix.model.shceme=rk4": ("model.shceme is not in this space", "Did you mean model.scheme?"),
    "search x space.fix.model.scheme=rk5": ("model.scheme: the text 'rk5' is not one of 'euler', 'midpoint'",),
    "search x space.fix.model.network=resnet": ("model.network cannot be changed", "Searched are: optim.lr"),
    "search x space.fix=4": ("space.fix=4", "Cannot assign int to Dict"),
    "search x space.range.optim.lr=[]": ("optim.lr: [] is not a range [low, high]",),
    "search x space.range.optim.lr=[0.1,0.01]": ("[0.1, 0.01] is an inverted range; write [0.01, 0.1]",),
    "search x space.range.optim.lr=[1e-9,0.1]": ("optim.lr: 1e-09 is not a number from 0.001 to 0.3",),
    "study x study.families=[resnet] space.fix.model.scheme=rk4": (
        "model.scheme is searched in no family of the study",
        "searched are data.augment, model.nodes",
    ),
    # combinations
    "search x space=resnet refinement.count=2": ("it is a ResNet, its depth cannot change",),
    "search x space=resnet model.scheme=rk4": ("model.scheme=rk4: only euler is possible, it is a ResNet",),
    "search x space=resnet model.substeps=2": ("it is a ResNet, its block is one step; use 1",),
    "search x model.basis=hat": ("never reads node 1, whose weights would stay untrained", "model.substeps=2"),
    "search x training.epochs=2": ("falls on the epochs [1, 2] (from 0), but training has 2", "train longer"),
    "search x cluster.address=h:1": ("cluster.autoscaling and cluster.leave_out need cluster=address",),
    "search x cluster=address cluster.address=null": ("cluster=address needs cluster.address=HOST:PORT",),
    "search x runtime.device=cuda": ("runtime.device=cuda, but torch sees no CUDA device here; auto and cpu",),
    "plan runtime.device=cuda": ("runtime.device=cuda, but torch sees no CUDA device here",),
    "plan runtime.device=cuda cluster=address": ("torch sees no CUDA device", "The dry run is on this machine"),
    "study x runtime.device=cuda": ("runtime.device=cuda, but torch sees no CUDA device here",),
    "search x runtime.device=cuda runtime.resources.gpus=0": ("trials see no GPU; give them a share, or use cpu",),
    # the data
    "search x data.per_class=1000": ("data.per_class=1000", "has only 119 images", "at most 116 fit"),
    "search x data.val_fraction=0": ("data.val_fraction=0.0 is not in [0.001, 0.999]",),
    "search x data=cifar10": ("lacks cifar-10-batches-py/data_batch_1", "runtime.data_dir=DIR, or download them"),
    "study x data=stl10 runtime.data_dir=/nowhere": ("/nowhere lacks stl10_binary/", "runtime.data_dir=DIR"),
}


@pytest.mark.parametrize(("line", "needles"), WRONG_WORDS.items(), ids=[ascii(line)[:60] for line in WRONG_WORDS])
def test_wrong_words_are_refused_with_one_message_that_says_what_is_possible(sweep, line, needles):
    assert_refused(sweep, line.split(" "), needles)


# --- what is right ----------------------------------------------------------------------------------------------------


def test_a_checkout_that_is_not_installed_says_so_where_its_version_is_asked(sweep, monkeypatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert sweep("--version") == (0, "sweep of a checkout that is not installed\n", "")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_runnable_and_explains_itself(sweep, stage):
    answer = sweep(stage, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert f"usage: {STAGES[stage].usage}" in answer.out
    assert STAGES[stage].summary in answer.out
    assert answer.out == sweep("help", stage).out
    assert STAGES[stage].summary in sweep("--help").out == sweep().out == sweep("help").out == help_text("") + "\n"


@pytest.mark.parametrize("stage", STAGES)
def test_cfg_job_prints_the_composed_configuration_as_yaml_without_needing_a_name(sweep, stage):
    answer = sweep(stage, "--cfg", "job", "data=mnist", "model.width=4", "space.fix.model.scheme=rk4")
    config = yaml.safe_load(answer.out)
    assert answer.code == 0
    assert (config["data"]["dataset"], config["model"]["width"]) == ("mnist", 4)
    assert config["space"]["fix"] == {"model": {"scheme": "rk4"}}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (WorkError("the disk [/dev/x] is full"), 1, "sweep: the disk [/dev/x] is full\n"),
        (KeyboardInterrupt("3 trials were cut short"), 130, "sweep: interrupted. 3 trials were cut short\n"),
    ],
)
def test_failed_work_and_interruption_have_their_own_exit_codes(sweep, monkeypatch, error, code, said):
    def stage(*_: Any) -> None:
        raise error

    monkeypatch.setitem(STAGES, "status", replace(STAGES["status"], run=stage))
    assert sweep("status") == (code, "", said)


# --- tab completion ---------------------------------------------------------------------------------------------------

COMPLETIONS: dict[str, list[str]] = {
    "sweep": [*STAGES, "help"],
    "sweep ": [*STAGES, "help"],
    "sweep help se": ["search", "sensitivity"],
    "sweep st": ["status", "study", "stop"],
    "sweep mod": [],
    "sweep search x mod": ["model.", "modules="],
    "sweep search x model.sch": ["model.scheme="],
    "sweep search x y z optim.n": ["optim.nesterov="],
    "sweep search x model.scheme=r": ["model.scheme=ralston", "model.scheme=rk4", "model.scheme=rk4_38"],
    "sweep search x optim.nesterov=": ["optim.nesterov=false", "optim.nesterov=true"],
    "sweep search x optim.lr=": [],
    "sweep plan da": ["data.", "data="],
    "sweep plan space=": [f"space={name}" for name in sorted(SPACES)],
    "sweep plan data=": [f"data={member.value}" for member in sorted(DataSet, key=lambda member: member.value)],
    "sweep plan space.fix.model.sc": ["space.fix.model.scheme="],
    "sweep plan space.range.o": ["space.range.optim."],
    "sweep plan no.such=": [],
    "sweep submit se": ["search"],
    "sweep submit search x cluster.job": ["cluster.job_server="],
    "sweep final path/to/best.yaml --": ["--help", "--cfg", "--config-dir", "--config-name", "--again"],
    "sweep search x --cfg ": ["job"],
    "sweep status x --": [
        *("--help", "--cfg", "--config-dir", "--config-name", "--verify", "--csv", "--trial", "--wide", "--json")
    ],
    "sweep search ": sorted(
        {f"{key.split('.')[0]}." for key in known_keys() if "." in key}
        | {"cluster=", "data=", "modules=", "space=", "study="}
    ),
}


@pytest.mark.parametrize(("line", "expected"), COMPLETIONS.items(), ids=COMPLETIONS)
def test_stages_complete_at_the_first_word_and_keys_and_values_after_it(line, expected):
    assert candidates(line) == expected


SWEEPS = {
    "sweep status ": ["second", "study", "study/continuous-d0", "x"],
    "sweep status s": [
        "second",
        "study",
        "study/continuous-d0",
        "search.",
        "sensitivity.",
        "space.",
        "space=",
        "study.",
        "study=",
    ],
    "sweep resume study/": ["study/continuous-d0"],
    "sweep report x ": ["second", "study", "study/continuous-d0"],
    "sweep report x se": ["second", "search.", "sensitivity."],
    "sweep final x optim.n": ["optim.nesterov="],
    "sweep search sec": [],
    "sweep study sec": [],
    "sweep status runtime.runs_dir=other ": ["elsewhere"],
}


@pytest.mark.parametrize(("line", "expected"), SWEEPS.items(), ids=SWEEPS)
def test_sweeps_and_studies_complete_where_a_stage_lacks_a_name(sweep, line, expected):
    for name in ("runs/x", "runs/x/final", "runs/second", "runs/study/continuous-d0", "other/elsewhere"):
        Path(name).mkdir(parents=True)
        Path(name, "config.yaml").touch()
    Path("runs/study/study.yaml").touch()
    Path("runs/no-sweep").mkdir()
    assert candidates(line) == expected


@pytest.mark.parametrize(("shell", "between"), [("bash", " "), ("zsh", " "), ("fish", "\n")])
def test_every_shell_gets_its_candidates_and_its_script(sweep, monkeypatch, shell, between):
    monkeypatch.setenv("COMP_LINE", "sweep st")
    monkeypatch.setattr(sys, "argv", ["sweep"])
    assert sweep("-sc", f"query={shell}") == (0, f"status{between}study{between}stop\n", "")
    assert "-sc query=" in sweep("-sc", f"install={shell}").out


# --- as a process of its own ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (
            ["search", "x", "model.widht=4"],
            2,
            "",
            "sweep: model.widht=4: model.widht is no key; did you mean model.width",
        ),
        (["-sc", "query=bash"], 0, "model.scheme=\n", ""),
    ],
)
def test_the_command_itself_answers_as_its_function_does(tmp_path, words, code, out, err):
    environment = {**os.environ, "COMP_LINE": "sweep search x model.sch"}
    done = subprocess.run(
        [sys.executable, "-m", "sweep", *words],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") == (1 if err else 0)
    assert list(tmp_path.iterdir()) == []
