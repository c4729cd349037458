"""What is run on a cluster from a machine that is none of its nodes, and has no files of its sweeps."""

import secrets
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.cli.command_line import FOLLOW, FROM_THE_BEGINNING, JOB_SERVER, SUBMITTED, Command
from sweep.console import say
from sweep.errors import InputError, WorkError

if TYPE_CHECKING:
    from sweep.cluster.job_server import JobServer, SubmittedJob
    from sweep.config.schema import AppConfig

RUNS, OPEN = "runtime.runs_dir=", "cluster.unauthenticated="
POLL_SECONDS = 1.0
REFUSED_SECONDS = 120.0  # within which a command is refused, or its trials begin
BEGUN = "Ray runs:"  # how the line begins after which trials do
OWN = "own"  # where the user's files are, in a job's working directory


def is_remote(command: Command) -> bool:
    return any(text.startswith(JOB_SERVER) for text in command.overrides)


def run_submit(command: Command, console: Console) -> None:
    from sweep.config.compose import load

    stage, *names = command.names
    if stage not in SUBMITTED:
        raise InputError(f"`sweep submit {stage}` is not possible; what can be submitted is {', '.join(SUBMITTED)}.")
    config = load(command.overrides)
    _check_server(config, f"submit {stage}")
    if names[0].endswith((".yaml", ".yml")):
        raise InputError(f"{names[0]} is of this machine: copy it to the head, and run `sweep {stage}` there.")
    _submit(replace(command, stage=stage, names=names), config, console)


def submit_resume(command: Command, console: Console) -> None:
    from sweep.config.compose import load

    _submit(command, load(_ours(command)), console)


def _submit(command: Command, config: "AppConfig", console: Console) -> None:
    """Submit a stage, and show what it says until its trials begin, so that what it refuses is seen here."""
    from sweep.cluster.job_server import JobLabel, Sent, is_loopback, job_server

    stage, name = command.stage, command.names[0]
    address = config.cluster.job_server or ""
    say(f"submit {stage} {name}: to {address}", console)
    if address.startswith("http:") and not is_loopback(address):
        say("The token goes there unencrypted: a tunnel would hide it (ssh -N -L 8265:127.0.0.1:8265 HEAD).", console)
    with job_server(config.cluster) as server:
        begins = stage in FROM_THE_BEGINNING
        runs = _runs_dir(command, config) if begins else _known_runs(server, command, config)
        job_id = f"{name.replace('/', '.')}-{stage}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        overrides, files = _sent(command.overrides)
        words = _words(replace(command, overrides=overrides), runs, begins)
        server.submit(words, JobLabel(name, stage, runs), job_id, Sent(files, console.width))
        job = _follow(server, job_id, console, until=BEGUN)
        if job.ended:
            _raise_if_failed(job)
            return
    there = f"{name} {JOB_SERVER}{address}"
    say(f"It goes on there as job {job_id}, whatever becomes of this machine.", console)
    say(f"Next: sweep status {there}", console)
    say(f"      sweep logs {there} {FOLLOW}", console)
    say(f"      sweep stop {there}", console)


def _words(command: Command, runs: str, begins: bool) -> list[str]:
    """Write the command as it is given on the head."""
    own = [text for text in command.overrides if not text.startswith((JOB_SERVER, RUNS, OPEN))]
    joins = ["cluster=address"] if begins and not any(text.startswith("cluster=") for text in own) else []
    return [command.stage, *command.names, *command.flags, *joins, *own, f"{RUNS}{runs}"]


def _check_server(config: "AppConfig", command: str) -> None:
    if config.cluster.job_server is None:
        raise InputError(
            f"`sweep {command}` needs the address of the cluster's job server: {JOB_SERVER}http://HEAD:8265, or "
            f"{JOB_SERVER}http://127.0.0.1:8265 through a tunnel."
        )


def _sent(overrides: list[str]) -> tuple[list[str], dict[str, Path]]:
    """Find the user's files that words name, and return the words as they are there, and each file by its place in the
    job's working directory."""
    from sweep.config.compose import value_of

    words: list[str] = []
    files: dict[str, Path] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        value = value.strip("'\"")
        if key == "--config-dir" or (key == "space" and value.endswith((".yaml", ".yml"))):
            place = f"{OWN}/{Path(value).resolve().name}"
            words.append(f"{key}={place}")
            files[place] = Path(value)
        elif key == "search.enqueue":
            places = {f"{OWN}/{n}-{Path(name).name}": Path(name) for n, name in enumerate(value_of(text) or ())}
            words.append(f"{key}=[{','.join(places)}]")
            files |= places
        else:
            words.append(text)
            files |= _modules(key, value)
    return words, files


def _modules(key: str, value: str) -> dict[str, Path]:
    """Find the source of modules that a word names, each a file or the directory of its package."""
    names = [name.strip(" '\"") for name in value.strip("[]").split(",")] if key == "modules" else []
    names += [value.partition(":")[0]] if key == "space" and ":" in value else []
    found = {}
    for name in {name.partition(".")[0] for name in names if name}:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, "it was imported when the words were judged"
        source = Path(spec.origin)
        source = source.parent if source.name == "__init__.py" else source
        found[source.name] = source
    return found


def _runs_dir(command: Command, config: "AppConfig") -> str:
    """Return the directory of results on the cluster. InputError: it has no place there."""
    runs = config.runtime.runs_dir
    if not PurePosixPath(runs).is_absolute():
        raise InputError(
            f"{RUNS}{runs} is relative, and a job's own directory is removed: `sweep submit {command.stage}` needs a "
            f"directory that all nodes mount at the same path, such as {RUNS}/shared/runs."
        )
    return runs


def _known_runs(server: "JobServer", command: Command, config: "AppConfig") -> str:
    """Return the directory of results that was given, or that of the last job that worked on the sweep."""
    if any(text.startswith(RUNS) for text in command.overrides):
        return _runs_dir(command, config)
    known = server.jobs(command.names[0] if command.names else "")
    return known[0].label.runs_dir if known else _missing(server, command)


def _missing(server: "JobServer", command: Command) -> str:
    names = ", ".join(sorted({job.label.sweep for job in server.jobs()})) or "none"
    asked = command.names[0] if command.names else "any sweep"
    raise InputError(
        f"The job server knows no job for {asked}; it knows jobs for: {names}. What began otherwise is found by "
        f"{RUNS}/shared/runs."
    )


# --- what became of it ------------------------------------------------------------------------------------------------


def remote_status(command: Command, console: Console) -> None:
    """Show what `sweep status` shows on the head, below how its last job stands."""
    from sweep.cluster.job_server import JobLabel, Sent, job_server
    from sweep.config.compose import load

    config = load(_ours(command))
    with job_server(config.cluster) as server:
        runs = _known_runs(server, command, config)
        if not command.flags:
            for job in server.jobs(command.names[0] if command.names else "")[:1]:
                say(_state(job), console)
        job_id = f"status-{secrets.token_hex(6)}"
        server.submit(_words(command, runs, begins=False), JobLabel("", "", ""), job_id, Sent({}, console.width))
        ended = _follow(server, job_id, console)
        server.forget(job_id)
    _raise_if_failed(ended)


def run_logs(command: Command, console: Console) -> None:
    from sweep.cluster.job_server import job_server
    from sweep.config.compose import load

    config = load(command.overrides)
    _check_server(config, "logs NAME")
    with job_server(config.cluster) as server:
        job = _job_of(server, command)
        say(_state(job), console)
        if FOLLOW in command.flags:
            say(_state(_follow(server, job.id, console)), console)
        else:
            _print(server.output(job.id).splitlines(), console)


def run_stop(command: Command, console: Console) -> None:
    """Ask the command to stop, as Ctrl-C would, and show how it does."""
    from sweep.cluster.job_server import job_server
    from sweep.config.compose import load

    config = load(command.overrides)
    _check_server(config, "stop NAME")
    with job_server(config.cluster) as server:
        job = _job_of(server, command)
        if job.ended:
            raise InputError(f"Nothing is at work on {job.label.sweep}: {_state(job)}")
        before = len(server.output(job.id).splitlines())
        server.stop(job.id)
        say("Asked it to stop. Running trials finish their epoch; Ctrl-C leaves it to that.", console)
        ended = _follow(server, job.id, console, skip=before)
    if ended.code is not None:
        say(f"It had ended before: {_state(ended)}", console)
        return
    say(f"Stopped: `sweep resume {job.label.sweep} {JOB_SERVER}{config.cluster.job_server}` goes on.", console)


def _job_of(server: "JobServer", command: Command) -> "SubmittedJob":
    found = server.jobs(command.names[0])
    if not found:
        _missing(server, command)
    return found[0]


def _state(job: "SubmittedJob") -> str:
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started / 1000))
    code = "" if job.code is None else f" with code {job.code}"
    return f"{job.label.stage} {job.label.sweep}: {job.status.lower()}{code}, begun {begun}, job {job.id}"


def _follow(
    server: "JobServer", job_id: str, console: Console, skip: int = 0, until: str | None = None
) -> "SubmittedJob":
    """Print what a job says until it has ended; or until one line begins so, or nobody need wait for that longer."""
    deadline = time.monotonic() + REFUSED_SECONDS
    while True:
        job = server.job(job_id)  # before its output, which is then whole if it has ended
        text = server.output(job_id)
        lines = text.splitlines() if job.ended else text.split("\n")[:-1]
        _print(lines[skip:], console)
        skip = max(skip, len(lines))
        begun = until is not None and (time.monotonic() > deadline or any(line.startswith(until) for line in lines))
        if job.ended or begun:
            return job
        time.sleep(POLL_SECONDS)


def _print(lines: list[str], console: Console) -> None:
    for line in lines:
        say(line, console)


def _raise_if_failed(job: "SubmittedJob") -> None:
    """Fail as the command has failed, whose own message was shown."""
    if job.code == 0:
        return
    what = f"{job.label.stage} {job.label.sweep}".strip() or "the command"
    if job.code is None:
        raise WorkError(
            f"On the cluster, {what} could not be run: {job.message.strip().splitlines()[-1:] or job.status}"
        )
    if job.code == 2:
        raise InputError(f"On the cluster, {what} was refused.")
    raise WorkError(f"On the cluster, {what} failed with code {job.code}.")


def _ours(command: Command) -> list[str]:
    """Choose the words that this machine reads; the head judges the others."""
    return [text for text in command.overrides if text.startswith((JOB_SERVER, RUNS, OPEN, "tracking.", "modules="))]
