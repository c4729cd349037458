"""What else befalls a cluster of hosts: cables, disks, heads, servers, tokens, company."""

import sys
import time

import pytest

from sweep.records.rows import TrialRow
from sweep.records.tables import read_rows
from tests.hosts.cluster import RAY, Cluster, noted
from tests.hosts.hosts import until

pytestmark = pytest.mark.timeout(600)
TRIALS = "search.trials=12"
SERVER = "--host 127.0.0.1 --port 5000 --workers 1 --artifacts-destination"


def test_a_host_that_is_added_gets_trials(hosts: Cluster) -> None:
    sweep = hosts.sweep("added", TRIALS, "search.concurrency=3")
    sweep.trains(5)
    begun = time.monotonic()
    added = hosts.worker(4)
    sweep.midway_on(added)
    seconds = time.monotonic() - begun
    assert sweep.command.wait() == 0, sweep.said
    noted(sweep.figures("host added", 0, seconds))
    added.kill()


def test_a_host_with_a_full_disk_is_named_and_left_out_and_so_is_one_that_the_user_names(hosts: Cluster) -> None:
    full = hosts.worker(5, own_mib=300)
    full.fill()
    begun = time.monotonic()
    sweep = hosts.sweep("full", TRIALS, "cluster.leave_out=[host3]")
    sweep.trains(1)
    seconds = time.monotonic() - begun
    assert sweep.command.wait() == 0, sweep.said
    assert "Left out: host3 (10.77.0.3): cluster.leave_out names it." in sweep.said
    assert "Left out: host5 (10.77.0.5): " in sweep.said
    assert {row.host for row in read_rows(sweep.directory / "trials.csv", TrialRow)} == {"host2"}
    noted(sweep.figures("host with a full disk", 0, seconds))
    full.kill()


def test_the_trials_of_a_host_that_is_cut_from_the_network_go_on_elsewhere(hosts: Cluster) -> None:
    sweep, victim = hosts.sweep("cut", TRIALS), hosts.network.hosts[3]
    hit = sweep.midway_on(victim)
    victim.cut()
    repeated = sweep.unsaved(hit)
    seconds = sweep.progress_of(hit)
    victim.heal()
    assert sweep.command.wait() == 0, sweep.said
    assert "lost (host3); attempt 2 follows" in sweep.said
    noted(sweep.figures("host cut from the network, healed", repeated, seconds))
    victim.kill()
    hosts.worker(3)


def test_two_sweeps_at_once_both_end(hosts: Cluster) -> None:
    first = hosts.sweep("first", TRIALS)
    first.trains(1)
    begun = time.monotonic()
    second = hosts.sweep("second", TRIALS)
    second.trains(1)
    seconds = time.monotonic() - begun
    for sweep in (first, second):
        assert sweep.command.wait(400) == 0, sweep.said
        noted(sweep.figures(f"two at once: the {sweep.directory.name}", 0, seconds))


def test_an_mlflow_server_that_dies_meanwhile_has_everything_when_it_is_back(hosts: Cluster) -> None:
    base, python = hosts.network.base, [sys.executable, "-P", "-m"]
    store = f"mlflow server --backend-store-uri sqlite:///{base}/mlflow.db {SERVER} {base}/files".split()
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = hosts.head.start(*python, *store, **quiet)
    until(lambda: "startup complete" in server.said, 120, "the server", lambda: server.said)
    sweep = hosts.sweep("served", TRIALS, "tracking.uri=http://127.0.0.1:5000")
    sweep.trains(20)
    hosts.head.run("bash", "-c", "kill -9 $(pgrep -f '[m]lflow')")
    seconds = sweep.progress_of(set(sweep.recorded()))
    server = hosts.head.start(*python, *store, **quiet)
    until(lambda: "startup complete" in server.said, 120, "the server", lambda: server.said)
    assert sweep.command.wait() == 0, sweep.said
    noted(sweep.figures("MLflow server killed", 0, seconds, base / "mlflow.db"))


def test_a_worker_without_the_right_token_is_no_node(hosts: Cluster) -> None:
    host = hosts.network.host(6)
    for token in ({"RAY_AUTH_TOKEN": "wrong" * 10}, {"RAY_AUTH_MODE": "disabled"}):
        ray = host.start(RAY, "start", f"--address={hosts.address}", "--num-cpus=1", **token)
        assert ray.wait(120) != 0, ray.said
    host.kill()


def test_a_sweep_goes_on_when_its_head_was_lost_and_started_anew(hosts: Cluster) -> None:
    sweep = hosts.sweep("head", TRIALS)
    sweep.trains(20)
    running = {row.number for row in read_rows(sweep.directory / "trials.csv", TrialRow) if not row.outcome.ended}
    for host in (hosts.head, hosts.network.hosts[2], hosts.network.hosts[3]):  # without a head Ray ends on all
        host.kill()
    repeated = sweep.unsaved(running)
    begun = time.monotonic()
    hosts.begin()
    resumed = hosts.sweep("head", stage="resume")
    resumed.progress_of(running)
    seconds = time.monotonic() - begun
    assert resumed.command.wait() == 0, resumed.said
    noted(resumed.figures("head lost, started anew, resumed", repeated, seconds))
