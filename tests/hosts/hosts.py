"""Hosts on one machine: each has network, processes, mounts and a name of its own, and the disk in common, as a network
file system would be. They need Linux and root.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
TOOLS = ("ip", "unshare", "nsenter", "setpriv")
TOKEN = "0123456789abcdef" * 4
NET = "10.77.0"


def obstacle() -> str:
    """Why there can be no hosts here; empty where there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "hosts of namespaces need Linux and root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"hosts of namespaces need {', '.join(missing)}"
    apart = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork"]
    pair = ["ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2"]
    tried = subprocess.run([*apart, *pair], capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def until(met: Callable[[], object], seconds: float, what: str, said: Callable[[], str] = str) -> float:
    """Wait until something holds, and return how long that took."""
    begun = time.monotonic()
    while not met():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds:.0f} s. {said()}"
        time.sleep(0.1)
    return time.monotonic() - begun


@dataclass
class Command:
    """A command on a host, and what it has said."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = 240) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(self.said) from error


@dataclass
class Host:
    """One host; `kill` ends it with all its processes, at once and without a word."""

    number: int
    network: "Network"
    init: int  # the process that all others of the host end with
    holder: subprocess.Popen[bytes]
    ray: Command | None = None
    started: list[Command] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"host{self.number}"

    @property
    def address(self) -> str:
        return f"{NET}.{self.number}"

    @property
    def own(self) -> Path:
        """The disk that only this host has, at the same path as that of any other; Ray's files are there."""
        return self.network.base / "own"

    def start(self, *words: str, **environment: str) -> Command:
        """Start a command there, in the directory that all hosts share."""
        base = self.network.base
        own = {
            "PATH": os.environ["PATH"], "HOME": str(self.own), "RAY_TMPDIR": str(self.own), "TMPDIR": str(self.own),
            "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN,
            "RAY_raylet_start_wait_time_s": "180", "RAY_gcs_server_port_wait_time_s": "180", "LANG": "C.UTF-8",
        }  # fmt: skip
        variables = [f"{name}={value}" for name, value in (own | environment).items()]
        log = base / f"{self.name}-{self.init}-{len(self.started)}.log"
        enter = ["nsenter", "-t", str(self.init), "-n", "-p", "-m", "-u"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *enter, "env", "-C", str(base), "-i", *variables, *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self.started.append(Command(process, log))
        return self.started[-1]

    def run(self, *words: str) -> str:
        command = self.start(*words)
        assert command.wait(60) == 0, command.said
        return command.said

    def kill(self) -> None:
        self.holder.kill()  # its child goes with it, and with that all processes of the host
        self.holder.wait(30)
        if self.holder.stdout is not None:
            self.holder.stdout.close()
        for command in self.started:
            command.process.wait(30)

    def cut(self) -> None:
        """Pull its cable."""
        ip("-n", self.network.switch, "link", "set", f"p{self.number}", "down")

    def heal(self) -> None:
        ip("-n", self.network.switch, "link", "set", f"p{self.number}", "up")

    def fill(self) -> None:
        """Leave no space on its own disk."""
        self.start("dd", "if=/dev/zero", f"of={self.own}/full", "bs=1M", "status=none").wait(60)


@dataclass
class Network:
    """Hosts on one switch. `base`: the directory below which all see the same files, but for `own`."""

    base: Path
    hosts: dict[int, Host] = field(default_factory=dict)

    @property
    def switch(self) -> str:
        return f"hosts{os.getpid()}-0"

    def namespace(self, number: int) -> str:
        return f"hosts{os.getpid()}-{number}"

    def host(self, number: int, blind: Path | None = None, own_mib: int = 2000) -> Host:
        """Make a host, or make it anew. `blind`: a directory in place of which it sees an empty one."""
        if number in self.hosts:
            ip("netns", "del", self.namespace(number))
        space, port = self.namespace(number), f"p{number}"
        ip("netns", "add", space)
        ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("-n", self.switch, "link", "set", port, "master", "bridge", "up")
        ip("-n", space, "address", "add", f"{NET}.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")
        ip("-n", space, "route", "add", "default", "via", f"{NET}.254")  # by which Ray finds its own address
        mounts = [f"mount -t tmpfs -o size={own_mib}m none {self.base}/own", "mount -t tmpfs none /dev/shm"]
        mounts += [f"mount -t tmpfs none {blind}"] if blind else []
        script = " && ".join([f"hostname host{number}", *mounts, "echo up"]) + "; while :; do sleep 1; done"
        apart = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "--propagation"]
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", space, *apart, "private", "bash", "-c", script],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None and holder.stdout.readline() == b"up\n"
        init = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()[0])
        self.hosts[number] = Host(number, self, init, holder)
        return self.hosts[number]


@contextmanager
def network() -> Iterator[Network]:
    """A switch without hosts, in a short directory, because a socket's path has at most 107 characters. All that is
    made goes at the end, and what a killed run of tests had left goes now."""
    _remove_left_over()
    made = Network(Path(tempfile.mkdtemp(prefix="h", dir="/tmp")))
    try:
        for name in ("own", "shared"):
            (made.base / name).mkdir()
        ip("netns", "add", made.switch)
        ip("-n", made.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", made.switch, "address", "add", f"{NET}.254/24", "dev", "bridge")
        ip("-n", made.switch, "link", "set", "bridge", "up")
        yield made
    finally:
        for host in made.hosts.values():
            host.kill()
        for name in _namespaces(os.getpid()):
            ip("netns", "del", name)
        shutil.rmtree(made.base, ignore_errors=True)


def _namespaces(pid: int) -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"hosts{pid}-*")]


def _remove_left_over() -> None:
    pids = {int(path.name[5:].partition("-")[0]) for path in Path("/run/netns").glob("hosts*-*")}
    for pid in pids:
        if not Path(f"/proc/{pid}").exists():
            for name in _namespaces(pid):
                ip("netns", "del", name)
