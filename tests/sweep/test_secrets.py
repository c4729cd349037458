"""A real sweep with secrets in its environment and its address: who can read them while it runs, and what it leaves."""

import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweep.cluster.session_directory import MARK
from tests.sweep.faults.fault_drivers import TINY, WORKERS, Place, command_of, descendants, lines, place
from tests.sweep.store_server import StoreServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("secrets"),  # one sweep is looked at, by all of these
    pytest.mark.timeout(600),
]
PASSWORD = "planted-password"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "planted-key-id",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-key",
    "AWS_SESSION_TOKEN": "planted-session",
    "SOME_API_TOKEN": "planted-token",
}
RAY_TOKEN = "9f" * 32  # Ray's processes need it, and nobody else
SECRETS = (PASSWORD, RAY_TOKEN, *ENVIRONMENT.values())
SEARCH = [*TINY, "search.trials=1", "training.epochs=100"]


@dataclass
class Seen:
    """What can be seen of a sweep by others while it runs, and what it has left."""

    arguments: dict[int, str]  # of its processes, by pid
    environments: dict[str, bytes]  # of Ray's processes, by their arguments
    listening: list[str]  # addresses with ports
    open_files: list[str]  # that others can read
    told: dict[str, list[str]]  # files that hold a secret: while it ran, afterwards, in the MLflow store
    files: int  # that were looked into while it ran
    said: str
    session_directories: list[Path]  # afterwards


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    server = StoreServer(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        with place() as here:
            yield look_at_a_sweep(here, server)
    finally:
        server.kill()


def look_at_a_sweep(here: Place, server: StoreServer) -> Seen:
    said, address = here.path / "said", server.uri.replace("//", f"//me:{PASSWORD}@")
    with said.open("wb") as out:
        command = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweep", "search", "x", *SEARCH, f"tracking.uri={address}"],
            env=here.environment | ENVIRONMENT | {"RAY_AUTH_TOKEN": RAY_TOKEN},
            cwd=here.path, stdout=out, stderr=out, umask=0o022,
        )  # fmt: skip
    try:
        while lines(here.run("x") / "curves.csv") < 5:
            assert command.poll() is None, said.read_text()
            time.sleep(0.05)
        family = [command.pid, *descendants(command.pid)]
        arguments = {pid: command_of(pid) for pid in family}
        rays = {words: environment_of(pid) for pid, words in arguments.items() if "-m sweep" not in words}
        listening, told, files = listening_addresses(family), files_with_secrets(here.path), len(regular(here.path))
        open_files = [str(path) for path in (here.run("x"), *here.run("x").rglob("*")) if is_open(path)]
        open_files += [str(path.parent) for path in here.path.glob(f"*/{MARK}") if is_open(path.parent)]
        assert command.wait(timeout=200) == 0, said.read_text()
    finally:
        if command.poll() is None:
            for pid in [*descendants(command.pid), command.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            command.wait()
    found = {"while it ran": told, "afterwards": files_with_secrets(here.path)}
    found["in MLflow"] = files_with_secrets(server.directory)
    left = [path.parent for path in here.path.glob(f"*/{MARK}")]
    return Seen(arguments, rays, listening, open_files, found, files, said.read_text(), left)


def regular(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]


def files_with_secrets(directory: Path) -> list[str]:
    found = []
    for path in regular(directory):
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            found += [f"{path}: {secret}" for secret in SECRETS if secret.encode() in content]
    return found


def is_open(path: Path) -> bool:
    try:
        return path.lstat().st_mode & 0o077 != 0 and not path.is_symlink()
    except FileNotFoundError:  # a checkpoint that was replaced
        return False


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def listening_addresses(pids: list[int]) -> list[str]:
    """As `ss -ltnp` finds them: sockets of these processes that wait for connections."""
    inodes = set()
    for pid in pids:
        with suppress(FileNotFoundError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    inodes.add(str(descriptor.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append(fields[1])
    return found


def host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel writes addresses as 32-bit words in the machine's byte order."""
    digits = bytes.fromhex(address.partition(":")[0])
    words = [int.from_bytes(digits[at : at + 4], sys.byteorder) for at in range(0, len(digits), 4)]
    found = ipaddress.ip_address(b"".join(word.to_bytes(4, "big") for word in words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def test_ray_starts_nothing_that_one_machine_has_no_use_for(seen: Seen) -> None:
    words = " ".join(seen.arguments.values())
    assert "raylet" in words
    assert not [name for name in ("monitor.py", "dashboard/dashboard.py") if name in words]


def test_no_argument_of_any_process_has_a_secret(seen: Seen) -> None:
    assert len(seen.arguments) > 5
    assert [words for words in seen.arguments.values() if any(secret in words for secret in SECRETS)] == []
    assert any("tracking.uri=http://127.0.0.1" in words for words in seen.arguments.values())


def test_no_file_has_a_secret_while_the_sweep_runs_nor_afterwards_nor_in_mlflow(seen: Seen) -> None:
    assert seen.files > 20
    assert seen.told == {"while it ran": [], "afterwards": [], "in MLflow": []}
    assert not any(secret in seen.said for secret in SECRETS)


def test_rays_processes_have_no_secret_but_rays_own(seen: Seen) -> None:
    assert any(words.startswith(WORKERS) for words in seen.environments)
    others = [secret.encode() for secret in SECRETS if secret != RAY_TOKEN]
    assert [words for words, text in seen.environments.items() if any(secret in text for secret in others)] == []


def test_a_local_sweep_listens_on_loopback_only(seen: Seen) -> None:
    assert len(seen.listening) >= 4  # gcs, raylet, driver, worker
    assert [address for address in seen.listening if not host(address).is_loopback] == []


def test_what_it_writes_is_its_users_alone_and_rays_directory_goes_with_it(seen: Seen) -> None:
    assert seen.open_files == []
    assert seen.session_directories == []


def test_an_address_of_the_kernels_table_is_understood() -> None:
    if sys.byteorder == "little":
        assert host("0100007F:1F90").is_loopback
        assert host("00000000000000000000000001000000:1F90").is_loopback
        assert not host("00000000:1F90").is_loopback
