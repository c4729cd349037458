"""sweep.cluster.connect: what may be asked, what fits, and Ray started here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from subprocess import PIPE

import pytest
from ray._private import ray_constants

from sweep.cluster import connect
from sweep.cluster import resources as offers
from sweep.cluster.connect import connected
from sweep.cluster.environment import environment
from sweep.cluster.left_out import LeftOut
from sweep.cluster.resources import Node, slots, trial_resources
from sweep.config.schema import ClusterConfig, ClusterKind, Resources
from sweep.errors import InputError, WorkError
from tests.sweep.ray_place import Place, short_place

pytestmark = pytest.mark.timeout(900)  # a busy machine takes minutes to start Ray


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with short_place() as place:
        yield place


# --- what may be asked, and what fits: no Ray needed ------------------------------------------------------------------

LOCAL, ADDRESS = ClusterKind.local, ClusterKind.address


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClusterConfig(address="head:6379"), "need cluster=address"),
        (lambda: ClusterConfig(autoscaling=True), "need cluster=address"),
        (lambda: ClusterConfig(kind=ADDRESS), "needs cluster.address=HOST:PORT, or auto"),
        (lambda: ClusterConfig(kind=ADDRESS, address="auto", gpus=1), "are for cluster=local"),
        (lambda: ClusterConfig(cpus=0), "cluster.cpus=0: at least 1"),
        (lambda: ClusterConfig(gpus=-1), "cluster.gpus=-1: at least 0"),
        (lambda: Resources(cpus=0), "a trial needs at least 1"),
        (
            lambda: Resources(gpus=1.5),
            "gpus=1.5: possible are 0, a share of one GPU such as 0.25, whole numbers, and auto",
        ),
        (lambda: Resources(gpus=-0.5), "possible are"),
        (lambda: Resources(gpus=1e-5), "possible are"),
        (lambda: Resources(gpus=float("inf")), "possible are"),
        (lambda: Resources(gpus="all"), "gpus=all: possible are 0, a share .* and auto"),
    ],
)
def test_what_cannot_be_asked_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


HEAD, SMALL, LARGE = Node("h", "::1", 0, 0), Node("s", "::2", 4, 1), Node("l", "::3", 16, 4)
CPU_ONLY = Node("c", "::4", 8, 0)


@pytest.mark.parametrize(
    ("nodes", "asked", "given", "fit"),
    [
        ([CPU_ONLY], Resources(), {"CPU": 1.0}, 8),
        ([CPU_ONLY, CPU_ONLY], Resources(cpus=3), {"CPU": 3.0}, 4),  # not floor(16 / 3)
        ([HEAD, SMALL, LARGE], Resources(), {"CPU": 1.0, "GPU": 1.0}, 5),
        ([SMALL, LARGE], Resources(gpus=0), {"CPU": 1.0}, 20),
        ([SMALL, LARGE], Resources(gpus=0.25), {"CPU": 1.0, "GPU": 0.25}, 20),
        ([LARGE], Resources(gpus=0.4), {"CPU": 1.0, "GPU": 0.4}, 8),  # not floor(4 / 0.4): a share lies within one GPU
        ([SMALL, LARGE], Resources(cpus=4, gpus=2), {"CPU": 4.0, "GPU": 2.0}, 2),
    ],
)
def test_a_trial_gets_what_was_asked_and_as_many_run_as_fit_node_by_node(monkeypatch, nodes, asked, given, fit):
    monkeypatch.setattr(offers, "_nodes", lambda left_out: nodes)
    assert trial_resources(asked) == given
    assert slots(given) == fit


@pytest.mark.parametrize(("count", "share"), [(1, 1.0), (4, 0.25), (3, 0.3333), (7, 0.1428)])
def test_where_the_share_is_measured_as_many_fit_on_a_gpu_as_was_found(monkeypatch, count, share):
    monkeypatch.setattr(offers, "_nodes", lambda left_out: [LARGE])
    given = trial_resources(Resources(gpus="auto"), on_a_gpu=lambda: count)
    assert given == {"CPU": 1.0, "GPU": share}
    assert LARGE._replace(gpus=1, cpus=99).fits(1, share) == count


def test_hosts_that_the_user_leaves_out_get_no_trials_and_one_that_is_not_there_is_said():
    nodes = [
        {"NodeID": f"a{n}", "NodeManagerHostname": f"host{n}", "NodeManagerAddress": f"10.0.0.{n}"} for n in (1, 2)
    ]
    left_out = LeftOut(["host2", "10.0.0.9"])
    assert left_out.selector() == {}
    left_out.hear(nodes)
    assert left_out.selector() == {"ray.io/node-id": "!in(a2)"}
    named, absent = left_out.sentences()
    assert named.startswith("Left out: host2 (10.0.0.2): cluster.leave_out names it. ")
    assert absent.startswith("cluster.leave_out=10.0.0.9: no node is there at present; there are 10.0.0.1, ")


def test_nothing_is_measured_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(offers, "_nodes", lambda left_out: [CPU_ONLY])
    assert trial_resources(Resources(gpus="auto"), on_a_gpu=lambda: 1 // 0) == {"CPU": 1.0}


def test_more_than_any_node_has_is_refused_with_what_the_cluster_has_unless_nodes_may_come(monkeypatch):
    monkeypatch.setattr(offers, "_nodes", lambda left_out: [HEAD, SMALL, SMALL])
    with pytest.raises(InputError) as refused:
        trial_resources(Resources(gpus=2))
    assert "asks for 1 CPUs and 2 GPUs on one node" in str(refused.value)
    assert "1 x (0 CPUs, 0 GPUs), 2 x (4 CPUs, 1 GPUs), in all 8 CPUs and 2 GPUs" in str(refused.value)
    assert trial_resources(Resources(gpus=2), autoscaling=True) == {"CPU": 1.0, "GPU": 2.0}


def test_an_autoscaling_cluster_without_nodes_must_be_told_about_gpus_and_has_one_slot(monkeypatch):
    monkeypatch.setattr(offers, "_nodes", lambda left_out: [HEAD])
    with pytest.raises(InputError, match=r"say runtime\.resources\.gpus=1, a share, or 0"):
        trial_resources(Resources(), autoscaling=True)
    assert slots(trial_resources(Resources(gpus=0.5), autoscaling=True)) == 1


# --- cluster=local ----------------------------------------------------------------------------------------------------


def gone(pids: list[int]) -> bool:
    """Waits: Ray kills its processes and does not wait for all of them."""
    for _ in range(200):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_local_ray_gives_shares_of_gpus_exactly_and_leaves_nothing_behind(place):
    for name in ("odenet", "sweep", "numpy", "colorsys"):  # the last is one that workers have not loaded yet
        (place.path / "elsewhere" / f"{name}.py").write_text(f"raise SystemExit('{name} of the working directory')")
    done = place.drive(
        """
        with connected(ClusterConfig(cpus=5, gpus=2), here):
            import ray
            import psutil  # Ray brings its own
            result = {"token": os.environ["RAY_AUTH_TOKEN"], "slots": slots(trial_resources(Resources(gpus=0.4)))}

            @ray.remote(num_cpus=0)
            class Count:
                now = most = 0
                def enter(self):
                    self.now += 1
                    self.most = max(self.most, self.now)
                def leave(self):
                    self.now -= 1
                def peak(self):
                    return self.most

            def hold(count):
                import time
                ray.get(count.enter.remote())
                while ray.get(count.peak.remote()) < 4:
                    time.sleep(0.02)
                time.sleep(0.5)  # in which a fifth would enter
                ray.get(count.leave.remote())

            count = Count.remote()
            ray.get([ray.remote(num_cpus=1, num_gpus=0.4)(hold).remote(count) for _ in range(5)], timeout=60)
            result["peak"] = ray.get(count.peak.remote())
            seen = ray.remote(num_cpus=1)(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
            result["seen without a GPU"] = ray.get(seen.remote())
            def imported():
                import colorsys, numpy, odenet.networks.model, sweep.worker.segment_training
                return [one.__file__ for one in (colorsys, numpy, odenet.networks.model, sweep)]
            result["imported"] = ray.get(ray.remote(num_cpus=1)(imported).remote()), imported()
            with connected(ClusterConfig(), here):
                pass
            result["outlives a nested use"] = ray.is_initialized()
            result["pids"] = [child.pid for child in psutil.Process().children(recursive=True)]
        result["environment"] = [name for name in os.environ if name.startswith(("RAY_AUTH", "RAY_AIR", "TUNE"))]
        result["home"] = [path.name for path in Path.home().glob(".*")]
        print(json.dumps(result))
        """,
        CUDA_VISIBLE_DEVICES="0,1",
        RAY_preload_python_modules="",  # five workers would load PyTorch, which one of them does here
        RAY_ADDRESS="127.0.0.1:1",  # of a cluster that is not asked for
    )
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["slots"] == result["peak"] == 4
    assert result["seen without a GPU"] == ""
    assert result["imported"][0] == result["imported"][1]
    assert result["outlives a nested use"]
    assert result["environment"] == []
    assert len(result["token"]) == 64
    assert ".ray" not in result["home"]
    assert len(result["pids"]) > 3
    assert gone(result["pids"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "config", "message"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, "gpus=3", "InputError: Ray cannot start on this machine with cluster.gpus=3: "),
        ({"RAY_TMPDIR": "/dev/null"}, "", "Possible are fewer cluster.gpus, and a short and writable directory in"),
    ],
)
def test_ray_that_cannot_start_as_asked_is_the_users_to_change(place, environment, config, message):
    done = place.drive(f"with connected(ClusterConfig({config}), here): pass", **environment)
    assert message in done.stdout


def test_ray_that_fails_to_start_is_failed_work(monkeypatch, tmp_path):
    tried = []

    def init(**options):
        directory = options["_temp_dir"]
        command = [sys.executable, "-c", "print(1, flush=True); input()", f"--session-dir={directory}/s"]
        tried.append(subprocess.Popen(command, stdin=PIPE, stdout=PIPE))
        tried[-1].stdout.readline()  # it is what it is called, and no longer this process
        raise TimeoutError("Timed out after 30 seconds.") if len(tried) == 1 else RuntimeError("No GCS.")

    monkeypatch.setattr("ray.init", init)
    with (
        pytest.raises(WorkError, match=r"Ray failed to start on this machine, 2 times: No GCS\. None of its processes"),
        connected(ClusterConfig(), tmp_path),
    ):
        pass
    for process in tried:  # as Ray's own, when one of them is late
        assert process.wait(30) == -signal.SIGKILL
        process.stdin.close()
        process.stdout.close()


def test_ray_is_started_again_where_it_was_too_slow_at_first(monkeypatch, tmp_path):
    tried = []

    def init(**options):
        assert not ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV  # under `uv run` it would ship the working directory
        tried.append((Path.cwd(), os.environ["PYTHONPATH"].split(os.pathsep)))
        if len(tried) == 1:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr(connect, "watched", nullcontext)
    monkeypatch.chdir(tmp_path)
    with connected(ClusterConfig(), tmp_path):
        assert Path.cwd() == tmp_path
    (first, _), (second, path) = tried
    assert tmp_path not in {first, second}  # its modules would be first on the workers' path
    assert str(tmp_path) not in path
    assert str(Path(connect.__file__).parents[2]) in path


@pytest.mark.parametrize(
    ("given", "mode", "fresh"),
    [
        ({}, "token", True),
        ({"RAY_AUTH_MODE": "disabled"}, "disabled", False),
        ({"RAY_AUTH_TOKEN_PATH": "/their/token"}, "token", False),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "theirs"}, "token", False),
    ],
)
def test_the_users_choice_of_authentication_is_kept(monkeypatch, tmp_path, given, mode, fresh):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with environment(ClusterConfig()):
        assert os.environ["RAY_AUTH_MODE"] == mode
        assert {name: os.environ[name] for name in given} == given
        assert ("RAY_AUTH_TOKEN" in os.environ) == (fresh or "RAY_AUTH_TOKEN" in given)
