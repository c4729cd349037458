"""A sweep on three hosts, one of which is lost, joined by one without the run directory, or loses its driver."""

import time

import pytest

from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow
from sweep.records.tables import read_rows
from tests.hosts.cluster import Cluster, noted

pytestmark = pytest.mark.timeout(400)
TRIALS = "search.trials=4"


def test_a_host_that_comes_late_without_the_run_directory_is_named_and_gets_no_further_trial(hosts: Cluster) -> None:
    sweep = hosts.sweep("late", "search.trials=9", "search.concurrency=3")
    sweep.trains(5)
    blind = hosts.worker(4, blind=True)
    line = f"host4 cannot use the run directory {sweep.directory}: No such file or directory; trials go elsewhere"
    seconds = sweep.until(lambda: line in sweep.said, "the late host is named")
    assert sweep.command.wait() == 0, sweep.said
    assert sweep.said.count("host4") == 1
    noted(sweep.figures("late host without the mount", 0, seconds))
    assert {row.host for row in read_rows(sweep.directory / "trials.csv", TrialRow)} == {"host2", "host3"}
    assert blind.run("ls", str(hosts.runs)) == ""
    blind.kill()


def test_the_trials_of_a_killed_host_go_on_elsewhere(hosts: Cluster) -> None:
    sweep, victim = hosts.sweep("killed", TRIALS), hosts.network.hosts[3]
    hit = sweep.midway_on(victim)
    victim.kill()
    repeated = sweep.unsaved(hit)
    seconds = sweep.progress_of(hit)
    assert sweep.command.wait() == 0, sweep.said
    assert "lost (host3); attempt 2 follows" in sweep.said
    noted(sweep.figures("worker's host killed", repeated, seconds))
    hosts.worker(3)


def test_a_sweep_whose_driver_was_killed_is_resumed(hosts: Cluster) -> None:
    sweep = hosts.sweep("driver", TRIALS)
    sweep.trains(20)
    hosts.head.run("bash", "-c", "kill -9 $(pgrep -f '[s]weep search driver')")
    sweep.command.wait()
    running = set(sweep.recorded()) - {
        row.number for row in read_rows(sweep.directory / "ledger.csv", TrialRow) if row.outcome is Outcome.done
    }
    repeated = sweep.unsaved(running)
    begun = time.monotonic()
    resumed = hosts.sweep("driver", stage="resume")
    resumed.progress_of(running)
    seconds = time.monotonic() - begun
    assert resumed.command.wait() == 0, resumed.said
    noted(resumed.figures("driver killed, resumed", repeated, seconds))
