"""A Ray cluster over hosts, sweeps on it, and what became of their trials."""

import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from sweep.records.checkpoints import checkpoint_files
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.tables import read_rows
from tests.hosts.hosts import Command, Host, Network, network, until
from tests.sweep.faults.fault_drivers import asked, differences, endings

RAY = str(Path(sys.executable).parent / "ray")
RAY_SECONDS = 150.0  # for a host to be a node
EPOCHS = 30
# An epoch takes about a tenth of a second of an idle core.
SMALL = [
    "space=smoke", "data.per_class=50", "model.width=8", f"training.epochs={EPOCHS}", "search.sampler=random",
    "search.checkpoint_every=1",
]  # fmt: skip
HEAD = "| event | trials | lost | duplicated | epochs repeated | seconds to progress | steps missing | steps doubled |"
TABLE: list[str] = []  # of all events, said at the end


@dataclass
class Figures:
    """What an event cost a sweep."""

    event: str
    trials: int
    lost: int  # asked for, and not ended by themselves
    duplicated: int  # ended more than once
    repeated: int  # epochs that were recorded and had no checkpoint
    seconds: float  # from the event to the next epoch of a trial that it had hit
    missing: int  # metric steps that MLflow lacks
    doubled: int  # metric steps that MLflow has twice

    def line(self) -> str:
        values = [getattr(self, one.name) for one in fields(self)]
        return "| " + " | ".join(f"{value:.0f}" if isinstance(value, float) else str(value) for value in values) + " |"


def noted(figures: Figures) -> None:
    """Put an event into the table; none may lose or double anything."""
    TABLE.append(figures.line())
    assert (figures.lost, figures.duplicated, figures.missing, figures.doubled) == (0, 0, 0, 0), figures


@dataclass
class Sweep:
    """A sweep on the cluster, by the command that is at work on it."""

    directory: Path
    command: Command

    @property
    def said(self) -> str:
        """What it has said, however wide its lines are."""
        return " ".join(self.command.said.split())

    def curves(self) -> list[CurveRow]:
        file = self.directory / "curves.csv"
        return read_rows(file, CurveRow, growing=True) if file.exists() else []

    def until(self, met: Callable[[], object], what: str, seconds: float = 200) -> float:
        """Wait until something holds while the command runs."""
        ended = lambda: not self.command.running  # noqa: E731 - looked at after what is waited for
        taken = until(lambda: met() or ended(), seconds, what, lambda: self.said)
        assert met(), f"{what}: the command has ended. {self.said}"
        return taken

    def trains(self, epochs: int) -> None:
        """Wait until so many epochs are recorded."""
        self.until(lambda: len(self.curves()) >= epochs, f"{epochs} epochs")

    def recorded(self) -> dict[int, int]:
        """The last recorded epoch of each trial."""
        found: dict[int, int] = {}
        for curve in self.curves():
            found[curve.number] = max(curve.epoch, found.get(curve.number, 0))
        return found

    def midway_on(self, host: Host) -> set[int]:
        """Wait until a trial there is in the midst of its epochs, and return it."""
        found = set[int]()

        def is_midway() -> bool:
            recorded = self.recorded()
            found.update(one for one in self.running_on(host) if 2 <= recorded.get(one, 0) < EPOCHS // 2)
            return bool(found)

        self.until(is_midway, f"a trial on {host.name}")
        return found

    def running_on(self, host: Host) -> set[int]:
        file = self.directory / "trials.csv"
        rows = read_rows(file, TrialRow) if file.exists() else []
        return {row.number for row in rows if row.outcome is Outcome.running and row.host == host.name}

    def unsaved(self, numbers: set[int]) -> int:
        """Epochs of these trials that are recorded and in no checkpoint."""
        recorded, folder, count = self.recorded(), self.directory / "checkpoints", 0
        for number in numbers:
            newest = next(iter(checkpoint_files(folder / f"{number:06d}")), None)
            saved = int(newest.stem.removeprefix("epoch-")) if newest else 0
            count += max(0, recorded.get(number, 0) - saved)
        return count

    def progress_of(self, numbers: set[int], seconds: float = 240) -> float:
        """Wait until one of these trials has another epoch; 0 where it had none of them."""
        before = self.recorded()
        if not numbers:
            return 0.0
        return self.until(
            lambda: any(self.recorded().get(one, 0) > before.get(one, 0) for one in numbers), "progress", seconds
        )

    def figures(self, event: str, repeated: int, seconds: float, database: Path | None = None) -> Figures:
        """Count what became of the trials. `database`: of an MLflow server; else no file may differ from another."""
        rows = read_rows(self.directory / "trials.csv", TrialRow)
        if database is None:
            assert differences(self.directory) == []
        ended = endings(self.directory)
        steps = metric_steps(database or self.directory / "mlflow.db")
        wanted = Counter({(row.trial_id, epoch): 1 for row in rows for epoch in range(1, row.epochs + 1)})
        through = sum(row.outcome.ended and not row.outcome.failed for row in rows)
        return Figures(
            event, len(rows), len(asked(self.directory)) - through, sum(count > 1 for count in ended.values()),
            repeated, seconds, len(wanted - steps), len(steps - wanted),
        )  # fmt: skip


def metric_steps(database: Path) -> Counter[tuple[str, int]]:
    """How often MLflow has the loss of each trial's epoch, by trial id and step."""
    query = (
        "SELECT tags.value, metrics.step, COUNT(*) FROM metrics JOIN tags USING (run_uuid) "
        "WHERE tags.key = 'trial_id' AND metrics.key = 'val/loss' GROUP BY tags.value, metrics.step"
    )
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as store:
        return Counter({(trial, step): count for trial, step, count in store.execute(query)})


@dataclass
class Cluster:
    """A head that runs no trials, where commands are typed, and workers with one CPU each."""

    network: Network

    def begin(self, workers: int = 2) -> None:
        """Start Ray on the head and on its workers, or start all of them anew."""
        head = ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false"]
        self.start_ray(self.network.host(1), *head)
        joining = [self.worker(2 + index, wait=False) for index in range(workers)]
        for host in joining:
            self.up(host)

    @property
    def head(self) -> Host:
        return self.network.hosts[1]

    @property
    def runs(self) -> Path:
        return self.network.base / "shared"

    @property
    def address(self) -> str:
        return f"{self.head.address}:6379"

    def worker(self, number: int, blind: bool = False, own_mib: int = 2000, wait: bool = True) -> Host:
        """Add a worker, or start one anew; `blind`: without the shared run directory."""
        host = self.network.host(number, blind=self.runs if blind else None, own_mib=own_mib)
        self.start_ray(host, f"--address={self.address}", "--num-cpus=1", wait=wait)
        return host

    def start_ray(self, host: Host, *words: str, wait: bool = True, **environment: str) -> None:
        own = ["--block", "--disable-usage-stats", "--num-gpus=0", "--object-store-memory=100000000"]
        host.ray = host.start(RAY, "start", *own, f"--node-ip-address={host.address}", *words, **environment)
        if wait:
            self.up(host)

    def up(self, host: Host) -> None:
        """Wait until a host is a node."""
        ray = host.ray
        assert ray is not None
        until(lambda: "--block" in ray.said or not ray.running, RAY_SECONDS, f"Ray on {host.name}", lambda: ray.said)
        assert ray.running, ray.said

    def sweep(self, name: str, *words: str, stage: str = "search", **environment: str) -> Sweep:
        """Type a command on the head."""
        where = ["cluster=address", f"cluster.address={self.address}", f"runtime.runs_dir={self.runs}"]
        asked_for = [*SMALL, *where, *words] if stage == "search" else [f"runtime.runs_dir={self.runs}", *words]
        python = [sys.executable, "-P", "-m", "sweep", stage, name, *asked_for]
        return Sweep(self.runs / name, self.head.start(*python, **environment))


@contextmanager
def cluster(workers: int = 2) -> Iterator[Cluster]:
    """A head and workers, which join at the same time."""
    with network() as made:
        one = Cluster(made)
        one.begin(workers)
        yield one
