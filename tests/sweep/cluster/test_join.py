"""sweep.cluster.join: a cluster of two nodes on this machine, joined from another working directory."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from sweep.cluster import join as joining
from sweep.cluster.join import check_visible
from sweep.cluster.left_out import LeftOut
from sweep.errors import InputError
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow
from sweep.records.tables import read_rows
from tests.sweep.ray_place import TOKEN, Place, short_place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a busy machine takes minutes to start Ray
]
CHECKOUT = Path(joining.__file__).parents[2]
as_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="a node that sees other files needs Linux and root"
)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with short_place() as place:
        yield place


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


JOIN = """
with connected(ClusterConfig(kind=ClusterKind.address, address={address!r}), Path({directory!r})):
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    def where():
        import sweep.records.outcome
        return sweep.records.outcome.__file__
    nodes = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes()]
    tasks = [ray.remote(num_cpus=0, scheduling_strategy=node)(where).remote() for node in nodes]
    print(json.dumps({{"where": ray.get(tasks, timeout=200), "slots": slots(trial_resources(Resources(gpus=0.5)))}}))
"""


@pytest.fixture(scope="module")
def address(place) -> str:
    """A head and a second node, whose view of `hidden` differs where the user may arrange that."""
    hidden = place.path / "hidden"
    hidden.mkdir()
    (place.path / "shared").mkdir()
    port = free_port()
    place.start_node(
        "--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false",
        "--num-cpus=0", "--num-gpus=0",
    )  # fmt: skip
    unshare = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh")
    prefix = unshare if as_root.args[0] is False else ()
    place.start_node(f"--address=127.0.0.1:{port}", "--num-cpus=2", "--num-gpus=2", prefix=prefix)
    return f"127.0.0.1:{port}"


def join(place, address, directory="shared", prefix=(), **environment) -> str:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} | environment
    script = JOIN.format(address=address, directory=str(place.path / directory))
    done = place.drive(script, prefix=prefix, **token)
    assert done.stderr == ""
    return done.stdout


def test_a_joined_cluster_runs_the_code_shipped_to_it_on_every_node_and_lives_on(place, address):
    result = json.loads(join(place, address))
    assert len(result["where"]) == 2
    assert all("py_modules_files" in path for path in result["where"])
    assert not any(Path(path).is_relative_to(CHECKOUT) for path in result["where"])
    assert result["slots"] == 2
    assert list((place.path / "shared").iterdir()) == []


@as_root
def test_a_run_directory_that_a_node_cannot_see_is_refused(place, address):
    message = join(place, "auto", directory="hidden", RAY_ADDRESS=address)
    assert "InputError: A node must read and write the run directory" in message
    assert "1 of 2 cannot, and no other has CPUs" in message
    assert ": No such file or directory. " in message
    assert "runtime.runs_dir=/shared/runs" in message
    assert list((place.path / "hidden").iterdir()) == []


@as_root
def test_doctor_has_a_row_for_each_node_and_names_the_one_that_sees_other_files(place, address):
    words = ["--json", "cluster=address", f"cluster.address={address}", f"runtime.runs_dir={place.path / 'hidden'}"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "sweep"), "doctor", *words],
        env=place.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN), cwd=place.path / "elsewhere",
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert sorted(node["storage"] for node in found["nodes"]) == ["", "No such file or directory"]
    assert {node["obstacle"] for node in found["nodes"]} == {""}
    assert all(abs(node["skew"]) < 1 and node["token"] == "environment" for node in found["nodes"])
    failed = [one["text"] for one in found["checks"] if one["level"] == "failed"]
    assert any("the directory of results: No such file or directory; mount it there" in text for text in failed)
    assert any("Ray counts 2 GPUs, torch sees 0" in text for text in failed)


@pytest.mark.parametrize(
    "environment",
    [
        {"RAY_AUTH_TOKEN": "wrong"},
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/none"},
    ],
)
def test_a_wrong_or_missing_token_is_refused(place, address, environment):
    message = join(place, address, **environment)
    assert f"InputError: The Ray cluster at {address} refuses this process's token (RAY_AUTH_MODE=" in message
    assert "RAY_AUTH_TOKEN_PATH" in message


def test_another_version_of_ray_or_python_is_refused(place, address):
    body = """
    import ray
    {change}
    with connected(ClusterConfig(kind=ClusterKind.address, address={address!r}), here): pass
    """
    for change, message in (
        ("ray.__version__ = '2.59.0'", "runs Ray 2.60.0, this is 2.59.0; both must be the same"),
        (
            "ray._private.utils.compute_version_info = lambda: ('2.60.0', '3.11.0')",
            "cannot be joined: Version mismatch",
        ),
    ):
        script = body.format(change=change, address=address)
        done = place.drive(script, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
        assert message in done.stdout


@as_root
def test_a_machine_that_is_no_node_of_the_cluster_is_told_so(place, address):
    message = join(place, address, prefix=("unshare", "--pid", "--fork", "--mount-proc"))
    assert f"This machine is no node of the Ray cluster at {address}" in message
    assert f"ray start --address={address}" in message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("127.0.0.1:1", "No Ray cluster answers at cluster.address=127.0.0.1:1: "),
        ("nowhere.invalid:6379", "No Ray cluster answers at cluster.address=nowhere.invalid:6379: "),
        ("listens", "No Ray cluster answers at cluster.address=127.0.0.1:"),
        ("ray://127.0.0.1:10001", "Ray Client (ray://) is not supported"),
        ("127.0.0.1", "must be HOST:PORT or auto"),
    ],
)
def test_an_address_where_no_cluster_answers_is_refused_soon(place, wrong, message):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = f"127.0.0.1:{silent.getsockname()[1]}" if wrong == "listens" else wrong
        script = f"with connected(ClusterConfig(kind=ClusterKind.address, address={asked!r}), here): pass"
        done = place.drive(script)
    assert done.stderr == ""
    assert message in done.stdout


@as_root  # in a process namespace of its own no other Ray of this machine is seen
def test_auto_without_a_cluster_here_is_refused(place):
    script = "with connected(ClusterConfig(kind=ClusterKind.address, address='auto'), here): pass"
    done = place.drive(script, ("unshare", "--pid", "--fork", "--mount-proc"), RAY_TMPDIR=str(place.path / "elsewhere"))
    assert "InputError: cluster.address=auto: no Ray cluster runs on this machine, and RAY_ADDRESS" in done.stdout


def test_a_run_directory_that_cannot_be_written_here_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("ray.nodes", list)
    with pytest.raises(InputError, match=r"missing cannot be written: No such file or directory"):
        check_visible(tmp_path / "missing", LeftOut())


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ray.exceptions.GetTimeoutError(), "no answer within 60 s"), (ray.exceptions.RayError("died\nwhy"), "died why")],
)
def test_a_node_that_gives_no_answer_is_named_with_the_reason(monkeypatch, tmp_path, error, reason):
    def get(look, timeout):
        raise error

    node = {"NodeID": "0" * 56, "NodeManagerHostname": "seven", "NodeManagerAddress": "::7", "Resources": {"CPU": 1.0}}
    monkeypatch.setattr("ray.nodes", lambda: [{**node, "Alive": True}])
    monkeypatch.setattr(joining, "_look", lambda node, probe: node)
    monkeypatch.setattr("ray.wait", lambda looks, **options: ([], looks))
    monkeypatch.setattr("ray.get", get)
    with pytest.raises(
        InputError,
        match=rf"1 of 1 cannot, and no other has CPUs: seven \(::7\): {reason}\. Choose a directory on storage",
    ):
        check_visible(tmp_path, LeftOut())
    assert list(tmp_path.iterdir()) == []


def search_on(place: Place, address: str, name: str, runs: str) -> subprocess.CompletedProcess:
    options = (
        "space=smoke search.trials=2 model.width=4 training.epochs=2 runtime.device=cpu runtime.resources.gpus=0.5"
    )
    joining = ["cluster=address", f"cluster.address={address}", f"runtime.runs_dir={place.path / runs}"]
    return subprocess.run(
        [str(Path(sys.executable).parent / "sweep"), "search", name, *joining, *options.split()],
        env=place.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN),
        cwd=place.path / "elsewhere",
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


def test_a_sweep_runs_on_a_joined_cluster_from_another_working_directory(place, address):
    done = search_on(place, address, "joined", "shared")
    assert done.returncode == 0, done.stderr
    rows = read_rows(place.path / "shared" / "joined" / "trials.csv", TrialRow)
    assert [row.outcome for row in rows] == [Outcome.done, Outcome.done]


@as_root
def test_a_sweep_whose_run_directory_the_workers_cannot_see_leaves_nothing_behind(place, address):
    refused = search_on(place, address, "blind", "hidden")
    assert refused.returncode == 2
    assert len(refused.stdout.splitlines()) == 2  # said what it is going to do and join, nothing more
    assert "hidden/blind" in refused.stderr
    assert not (place.path / "hidden" / "blind").exists()
