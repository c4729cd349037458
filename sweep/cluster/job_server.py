"""Commands run on a cluster by its job server, from a machine that is none of its nodes.

A command goes there with the code that this process has, and runs on the head as a Ray job. What it prints is all that
comes back.
"""

import json
import logging
import shlex
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sweep.cluster.connect import refresh_authentication
from sweep.cluster.environment import client_environment
from sweep.config.schema import ClusterConfig
from sweep.errors import InputError, WorkError
from sweep.interpreter import PACKAGES
from sweep.records.best import COMMIT, git_commit

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

ANSWER_SECONDS = 10.0
# Between asking a job to stop and killing it, instead of Ray's 3 s: an epoch is finished, and MLflow told. A job that
# has ended is not waited for.
STOP_SECONDS = 3600
_OUTPUT = "Running entrypoint for job "  # the last line of Ray's own in a job's log
_PYTHON = "--python_worker_command="  # of a raylet's command line: with which Python Ray runs there


@dataclass(frozen=True, slots=True)
class JobLabel:
    """The stage and the sweep of a submitted command, as Ray keeps them with the job."""

    sweep: str
    stage: str
    runs_dir: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The luggage of a command: the user's files by their places in its working directory, and how many columns
    its lines may have."""

    files: Mapping[str, Path]
    columns: int


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job as the server knows it. `code`: the exit code, None where the command has not ended by itself."""

    id: str
    label: JobLabel
    status: str  # Ray's word
    ended: bool
    code: int | None
    message: str
    started: int  # milliseconds since 1970


class JobServer:
    """The job server of a cluster. Its methods raise WorkError where it answers no longer."""

    def __init__(self, client: "JobSubmissionClient") -> None:
        self._client = client

    def submit(self, words: Sequence[str], label: JobLabel, job_id: str, sent: Sent) -> None:
        """Run `sweep WORDS` on the head."""
        command = f"exec {self._python()} -m sweep {shlex.join(words)}"
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "COLUMNS": str(sent.columns), COMMIT: git_commit()}
        with tempfile.TemporaryDirectory() as place, _answering():
            _copy_code(Path(place))
            for name, source in sent.files.items():
                _copy(source, Path(place) / name)
            environment = {"working_dir": place, "env_vars": variables}
            self._client.submit_job(
                entrypoint=command, submission_id=job_id, runtime_env=environment, metadata=asdict(label)
            )

    def jobs(self, sweep: str = "") -> list[SubmittedJob]:
        """List the commands submitted for a sweep, or for all: those that run first, then the newest."""
        with _answering():
            found = [_job(one) for one in self._client.list_jobs() if one.submission_id and _label(one)]
        found = [job for job in found if sweep in ("", job.label.sweep)]
        return sorted(found, key=lambda job: (job.ended, -job.started))

    def job(self, job_id: str) -> SubmittedJob:
        with _answering():
            return _job(self._client.get_job_info(job_id))

    def output(self, job_id: str) -> str:
        """Return what the command has printed so far, without what Ray says before it."""
        with _answering():
            log = self._client.get_job_logs(job_id)
        _, begun, rest = log.partition(_OUTPUT)
        return rest.partition("\n")[2] if begun else ""

    def stop(self, job_id: str) -> None:
        with _answering():
            self._client.stop_job(job_id)

    def forget(self, job_id: str) -> None:
        """Remove a job that has ended from the server's list."""
        with _answering():
            self._client.delete_job(job_id)

    def _python(self) -> str:
        """Return the Python that Ray runs with on the head; a job's PATH may lead to another one."""
        with _answering():
            answer = self._client._do_request("GET", "/nodes?view=summary")
            nodes = answer.json()["data"]["summary"] if answer.ok else []
        for node in nodes:
            found = [text for text in node.get("cmdline") or () if text.startswith(_PYTHON)]
            if node["raylet"]["isHeadNode"] and found:
                return shlex.quote(found[0].removeprefix(_PYTHON).split(" ")[0])
        return "python3"


def _label(job: "JobDetails") -> JobLabel | None:
    """Read whose a job is; None where it is not ours, or only asked something."""
    try:
        return JobLabel(**{name: (job.metadata or {})[name] for name in JobLabel.__slots__})
    except KeyError:
        return None


def _job(job: "JobDetails") -> SubmittedJob:
    label = _label(job) or JobLabel("", "", "")
    status, ended = job.status.value, job.status.is_terminal()
    started = job.start_time or 0
    return SubmittedJob(job.submission_id or "", label, status, ended, job.driver_exit_code, job.message or "", started)


def _copy_code(place: Path) -> None:
    """Copy our packages to where a job is to have them."""
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None and spec.submodule_search_locations is not None
        _copy(Path(spec.submodule_search_locations[0]), place / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


@contextmanager
def job_server(config: ClusterConfig) -> Iterator[JobServer]:
    """Reach the job server of `cluster.job_server`.

    Raises:
        InputError: there is none, or it refuses the token; or it is remote and takes anybody, and
            `cluster.unauthenticated` does not say that this is meant.
    """
    address = (config.job_server or "").rstrip("/")
    is_open = not _authenticates(address)
    if is_open and not is_loopback(address) and not config.unauthenticated:
        raise InputError(
            f"The job server {address} takes anybody who reaches it: whoever does can run code on the cluster. Start "
            "Ray with RAY_AUTH_MODE=token, or say cluster.unauthenticated=true where the network itself is closed."
        )
    from ray.job_submission import JobSubmissionClient

    before = logging.root.manager.disable
    with client_environment():
        refresh_authentication()
        logging.disable(logging.WARNING)  # of uploads, and of a token that a server may not want
        try:
            with _answering():
                client = JobSubmissionClient(address)
            yield JobServer(client)
        finally:
            logging.disable(before)


def is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _authenticates(address: str) -> bool:
    """Tell whether the server refuses who has no token."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_SECONDS) as answer:
            json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return True
        raise InputError(f"{address} is no job server of Ray's: it answers {error.code} {error.reason}.") from error
    except OSError as error:
        why = getattr(error, "reason", error)
        raise InputError(
            f"No job server answers at cluster.job_server={address}: {why}. It is the head's dashboard, port 8265, "
            "which is reached by a tunnel: ssh -N -L 8265:127.0.0.1:8265 HEAD, and cluster.job_server="
            "http://127.0.0.1:8265."
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{address} is no job server of Ray's: it does not say its version as one does.") from error
    return False


@contextmanager
def _answering() -> Iterator[None]:
    """Phrase what Ray's client raises."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise InputError(
            "The job server refuses this process's token. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a "
            "readable file of mode 0600 with the cluster's token."
        ) from error
    except (RuntimeError, OSError) as error:  # OSError: of the network, those of the library that it uses included
        said: Any = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkError(f"The job server does not do it: {said[0]}") from error
