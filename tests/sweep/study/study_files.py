"""A study as `sweep study` leaves it once its searches are done, without Ray and without training."""

from pathlib import Path

from sweep.config.compose import load
from sweep.config.schema import AppConfig, save
from sweep.records.files import write_text
from sweep.records.run_directory import PROTOCOL, SweepFiles
from sweep.records.stage_record import BegunStage, record_stage
from sweep.stages.search import Search
from sweep.stages.study import prepare_study
from sweep.study.members import members
from tests.sweep.pretended import Worker, opened
from tests.sweep.sweep_files import session_on

WORDS = [
    "study.families=[resnet,continuous]", "study.draws=[0,1]", "data.per_class=5", "model.width=2",
    "training.epochs=4", "search.trials=2", "search.sampler=random", "final.seeds=2",
]  # fmt: skip


def study_config(runs: Path, *words: str) -> AppConfig:
    return load([*WORDS, f"runtime.runs_dir={runs}", *words])


def begun_study(runs: Path, *words: str) -> AppConfig:
    """Prepare the study `tiny` and write what its command writes before the first trial."""
    config = study_config(runs, *words)
    prepared, files = prepare_study(config, "tiny"), SweepFiles(runs / "tiny")
    write_text(files.study, save(config))
    write_text(files.directory / PROTOCOL, prepared.protocol)
    record_stage(files.stage, BegunStage.study)
    return config


def searched_study(runs: Path, *words: str) -> AppConfig:
    """Search all sweeps of the study `tiny`, with a worker that trains nothing."""
    config = begun_study(runs, *words)
    prepared = prepare_study(config, "tiny")
    for part, member in members(config).items():
        one = Search(session_on(member, f"tiny/{part}"), prepared.searches[part])
        sweep = opened(one.batch.session, one.batch.source, one.batch.splits)
        sweep.drive(Worker())
        sweep.controller.finish("")
        one.batch.log.rows = sweep.log.rows
        one.conclude()
        sweep.log.mark_finished()
    return config
