"""The watch over a cluster that was joined: what listens there is the head, and this machine's own part of it."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.cluster import watch
from sweep.cluster.watch import ended, terminable, watched_cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, socket.socket]]:
    monkeypatch.setattr(watch._RayWatch, "ended", "")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.create_server(("127.0.0.1", 0)) as head, socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind("raylet")
        raylet.listen()
        yield {"head": head, "raylet": raylet}


def address(head: socket.socket) -> str:
    host, port = head.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize(
    ("part", "says"), [("head", "the head of the cluster, 127.0.0.1:"), ("raylet", "this machine's own part")]
)
def test_a_command_is_interrupted_and_told_which_part_of_its_cluster_is_gone(cluster, part, says):
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), watched_cluster(address(cluster["head"]), "raylet", patience=0.3):
        cluster[part].close()
        time.sleep(30)
    assert time.monotonic() - begun < 10
    assert says in ended() and "has not answered" in ended()


def test_sigterm_ends_what_is_inside_as_ctrl_c_does_and_afterwards_what_it_did_before():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_that_answers_is_left_alone(cluster):
    with watched_cluster(address(cluster["head"]), "raylet", patience=0.2):
        time.sleep(1)
    assert ended() == ""
