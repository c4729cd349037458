"""cluster.yaml, checked as `ray up` would before it asks AWS for anything."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "cluster.yaml").read_text(encoding="utf-8")


@pytest.fixture
def written() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


@pytest.fixture
def prepared(written) -> dict[str, Any]:
    return prepare_config(written)


def commands(config: dict[str, Any]) -> list[str]:
    return [command for name, value in config.items() if name.endswith("_commands") for command in value]


def starts(config: dict[str, Any]) -> list[str]:
    return [command for command in commands(config) if "ray start" in command]


def test_it_passes_rays_schema_and_rays_own_check(written, prepared):
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(written, schema)
    validate_config(prepared)


def test_the_head_runs_no_trials_and_is_not_a_spot_instance(prepared):
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_are_spot_instances_with_gpus_that_come_only_when_needed(prepared):
    worker = prepared["available_node_types"]["worker"]
    assert (worker["min_workers"], worker["max_workers"]) == (0, prepared["max_workers"])
    assert worker["resources"]["GPU"] >= 1
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert not prepared["provider"]["cache_stopped_nodes"]


def test_every_node_starts_ray_with_token_authentication_and_the_token_is_its_users_alone(prepared):
    assert len(starts(prepared)) == 2
    for start in starts(prepared):
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token" in start
    assert "/home/ubuntu/.ray/auth_token" in prepared["file_mounts"]
    for setup in (prepared["head_setup_commands"], prepared["worker_setup_commands"]):
        assert "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token" in setup


def test_dashboard_and_ssh_are_closed_to_the_internet(prepared):
    assert "--dashboard-host=127.0.0.1" in next(start for start in starts(prepared) if "--head" in start)
    assert "0.0.0.0" not in yaml.safe_dump(prepared)
    for node in prepared["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"], "without one Ray makes a group that opens SSH to the internet"


def test_every_node_installs_the_locked_versions_and_none_of_rays_defaults(prepared):
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert f"\nray=={ray.__version__}\n" in lock
    assert "\nboto3==" in lock  # with which the head asks AWS for workers
    for setup in (prepared["head_setup_commands"], prepared["worker_setup_commands"]):
        assert any("-r ~/checkout/requirements.lock" in command for command in setup)
        assert any(re.search(r"uv venv .*--python 3\.11\.\d+ ", command) for command in setup)
    assert not [command for command in commands(prepared) if ".whl" in command or "ray[" in command]


def test_what_is_copied_is_in_the_repository(prepared):
    local = {path for path in prepared["file_mounts"].values() if not path.startswith("~")}
    assert not [path for path in local if not (ROOT / path).exists()]
    assert {"odenet", "search_spaces", "sweep", "pyproject.toml", "requirements.lock"} <= local


def test_it_holds_no_address_but_loopback_and_no_account():
    assert set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", TEXT)) == {"127.0.0.1"}
    assert set(re.findall(r"\b(?:ami|sg|fs)-(\w+)", TEXT)) == {"0" * 17}
