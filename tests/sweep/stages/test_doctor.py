"""What `sweep doctor` finds, and that it tells a warning from a failure."""

import os
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from sweep import interpreter
from sweep.config.compose import load
from sweep.errors import WorkError
from sweep.stages import doctor as module
from sweep.stages.doctor import CHECKS, Finding, Level, doctor


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(name: str, *words: str) -> list[Finding]:
    return list(CHECKS[name](load(list(words))))


def test_the_packages_are_those_that_the_distribution_asks_for() -> None:
    assert [finding.level for finding in found("packages")] == [Level.ok]


def test_a_package_of_another_version_fails_and_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = interpreter.version
    monkeypatch.setattr(interpreter, "version", lambda name: "1.0" if name == "optuna" else real(name))
    (wrong, _) = found("packages")
    assert wrong.level is Level.failed
    assert "optuna 1.0 where >=5 is needed: install by" in wrong.text


def test_packages_that_are_not_installed_are_findings_also_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = interpreter.version

    def without(name: str) -> str:
        if name in ("mlflow", module.DISTRIBUTION):
            raise module.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(interpreter, "version", without)
    lacking, here = found("packages")
    assert lacking.level is Level.failed and lacking.text.startswith("mlflow absent where >=3.17.2 is needed")
    assert "mlflow absent" in here.text
    monkeypatch.setattr(module, "requires", without)
    checkout, _ = found("packages")
    assert checkout.level is Level.warning and "a checkout that is not installed" in checkout.text


@pytest.mark.parametrize(
    ("name", "words", "level", "says"),
    [
        ("data", ["data=digits"], Level.ok, "digits: 596 test images"),
        ("data", ["data=cifar10", "runtime.data_dir=nowhere"], Level.failed, "runtime.data_dir=DIR"),
        ("results", [], Level.ok, "can be written"),
        ("results", ["runtime.runs_dir=/proc/none"], Level.failed, "choose another runtime.runs_dir"),
        ("machine", [], Level.ok, "CPUs"),
        ("machine", ["runtime.resources.cpus=1000"], Level.failed, "runtime.resources.cpus=1000"),
        ("tracking", [], Level.ok, "sqlite"),
        ("tracking", ["tracking.uri=http://127.0.0.1:9"], Level.warning, "does not answer"),
    ],
)
def test_each_check_says_what_is_there_or_what_to_do(
    name: str, words: list[str], level: Level, says: str, empty: Path
) -> None:
    findings = found(name, *words)
    assert any(finding.level is level and says in finding.text for finding in findings), findings
    assert list(empty.iterdir()) == []


class OldServer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"2.0.1")

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_of_another_version_is_a_warning() -> None:
    with HTTPServer(("127.0.0.1", 0), OldServer) as server:
        Thread(target=server.handle_request, daemon=True).start()
        (finding,) = found("tracking", f"tracking.uri=http://127.0.0.1:{server.server_port}")
    assert finding.level is Level.warning
    assert "answers, version 2.0.1, here is 3." in finding.text


class GuardedServer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers["Authorization"] == f"Basic {b64encode(b'me:pass').decode()}"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(version("mlflow").encode() if known else b"You are not authenticated.")

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_is_asked_with_the_credentials_that_a_delivery_would_have(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(empty))
    with HTTPServer(("127.0.0.1", 0), GuardedServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        asked = "tracking", f"tracking.uri=http://127.0.0.1:{server.server_port}"
        (refused,) = found(*asked)
        assert refused.level is Level.warning
        assert "does not take who asks (401 Unauthorized): write user and password to ~/.mlflow" in refused.text
        (empty / ".mlflow").mkdir()
        credentials = "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = pass\n"
        (empty / ".mlflow" / "credentials").write_text(credentials)
        assert [one.level for one in found(*asked)] == [Level.ok]
        server.shutdown()


def test_more_threads_than_a_trial_has_cpus_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert [finding.level for finding in found("machine")].count(Level.warning) == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("4,2", "a trial has 1 CPUs: oversubscription is slow, unset it"),
        ("1, 8", ""),
        ("1", ""),
        ("", "is no number of threads"),
        ("all", "is no number of threads"),
        ("0", "is no number of threads"),
        ("²", "is no number of threads"),
    ],
)
def test_every_value_that_the_variable_for_threads_may_have_is_understood(
    monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    warnings = [finding.text for finding in found("machine") if finding.level is Level.warning]
    assert len(warnings) == bool(says)
    assert says in "".join(warnings)


@pytest.mark.parametrize(
    ("number", "share", "expected"),
    [
        ("ours", "0.25", (Level.ok, "the CUDA MPS daemon runs")),
        ("1", "0.25", (Level.ok, "the CUDA MPS daemon runs")),  # another user's, or root's own
        (str(2**22 + 1), "0.25", (Level.warning, "To start one, as the user of the trials")),  # none has this number
        ("", "0.25", (Level.warning, "`nvidia-cuda-mps-control -d`")),
        ("0", "0.25", (Level.warning, "take turns")),
        ("-7.5", "1", (Level.ok, "no CUDA MPS daemon runs")),
    ],
)
def test_an_mps_daemon_is_found_by_its_living_process(
    number: str, share: str, expected: tuple[Level, str], empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(empty))
    (empty / "nvidia-cuda-mps-control.pid").write_text(str(os.getpid()) if number == "ours" else number)
    (finding,) = [one for one in found("machine", f"runtime.resources.gpus={share}") if "MPS" in one.text]
    assert finding.level is expected[0]
    assert expected[1] in finding.text and str(empty) in finding.text


def test_a_machine_without_gpus_hears_nothing_of_mps(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(empty / "nowhere"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert not any("MPS" in finding.text for finding in found("machine"))


def test_a_place_too_long_for_rays_sockets_fails_before_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 60)
    (finding,) = found("ray")
    assert (finding.level, "has 65 characters" in finding.text) == (Level.failed, True)


@pytest.mark.parametrize(("levels", "fails"), [([Level.ok, Level.warning], False), ([Level.ok, Level.failed], True)])
def test_a_failure_ends_the_command_with_an_error_and_a_warning_does_not(
    levels: list[Level], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKS", {"one": lambda _: iter([Finding(level, "text") for level in levels])})
    console = Console(file=StringIO(), markup=False)
    if fails:
        with pytest.raises(WorkError, match="1 check"):
            doctor(load([]), console)
    else:
        doctor(load([]), console)
        assert isinstance(console.file, StringIO)
        assert "Nothing failed" in console.file.getvalue()
