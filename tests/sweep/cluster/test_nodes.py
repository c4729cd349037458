"""What a node says of itself, what of that is a complaint, and how the nodes are shown."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from sweep.cluster import nodes
from sweep.cluster.nodes import NodeQuestion, NodeReport, complaints, report
from sweep.config.compose import load
from sweep.console import PlainConsole
from sweep.errors import WorkError
from sweep.stages import doctor as module
from sweep.stages.doctor import Finding, Level, doctor
from sweep.stages.listing import View

GOOD = NodeReport(
    host="node1 192.0.2.7", python="3.11.7", ray="2.60.0", torch="2.13.0", sweep="0.1.0", ray_gpus=1,
    gpus=("NVIDIA H100 80GB HBM3",), driver="550.54.15", mps=True, token="0600", free_gib=81.2, data=True,
    tracking=True, skew=0.01,
)  # fmt: skip


def test_a_node_says_what_it_is_and_whether_it_sees_the_very_directory(tmp_path: Path, monkeypatch) -> None:
    (probe := tmp_path / "marker").write_text("4f")
    (token := tmp_path / "token").write_text("t")
    token.chmod(0o640)
    for name, value in (("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN_PATH", str(token))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    said = report(NodeQuestion(str(probe), "4f", str(tmp_path), "http://127.0.0.1:9"))
    assert (said.storage, said.data, said.tracking, said.token) == ("", True, False, "0640")
    assert said.free_gib > 0 and said.torch.startswith("2.") and len(list(complaints(said, said))) >= 1
    assert nodes._obstacle(probe, "of another one") == "another directory of that name"
    assert nodes._obstacle(tmp_path / "no" / "marker", "4f") == "No such file or directory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["marker", "token"]


@pytest.mark.parametrize(
    ("change", "stops", "says"),
    [
        ({"obstacle": "no answer within 120 s"}, True, "it cannot be used: no answer within 120 s; look at"),
        ({"torch": "2.12.0"}, True, "torch 2.12.0, here is 2.13.0: install by"),
        ({"storage": "Read-only file system"}, True, "the directory of results: Read-only file system; mount"),
        ({"ray_gpus": 2}, True, "Ray counts 2 GPUs, torch sees 1: look at the driver"),
        ({"token": "open"}, False, "it takes anybody: start Ray there with RAY_AUTH_MODE=token"),
        ({"token": "0644"}, False, "others can read its token (mode 0644): chmod 600"),
        ({"free_gib": 1.25}, False, "1.2 GiB are free where results go: make space"),
        ({"skew": -7.5}, False, "its clock is -7.5 s off"),
    ],
)
def test_what_is_wrong_with_a_node_is_one_complaint_with_what_to_do(change: dict, stops: bool, says: str) -> None:
    ((found, text),) = complaints(replace(GOOD, **change), GOOD)
    assert found is stops and text.startswith(says)
    assert list(complaints(GOOD, GOOD)) == []


def test_nodes_are_rows_in_eighty_columns_whose_versions_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [GOOD, replace(GOOD, host="node2 192.0.2.8", torch="2.12.0", gpus=(), ray_gpus=0, mps=False)]
    findings = [Finding(Level.ok, "what each node says of itself:", shown), Finding(Level.failed, "node2: torch")]
    monkeypatch.setattr(module, "CHECKS", {"ray": lambda _: iter(findings)})
    console = PlainConsole(file=(out := StringIO()), width=80)
    with pytest.raises(WorkError, match=r"1 check\(s\) failed"):
        doctor(load([]), console)
    text = out.getvalue()
    assert "On each node: python 3.11.7, ray 2.60.0, sweep 0.1.0\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "node1 192.0.2.7  2.13.0  1 NVIDIA H100 80GB HBM3  550.54.15" in text
    console = PlainConsole(file=(out := StringIO()), width=80)
    with pytest.raises(WorkError):
        doctor(load([]), console, View.json)
    assert [one["torch"] for one in json.loads(out.getvalue())["nodes"]] == ["2.13.0", "2.12.0"]
