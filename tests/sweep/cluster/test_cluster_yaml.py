"""cluster.yaml and deploy/, checked as `ray up` and Kubernetes would before anything is asked for."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilityRecord, NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config

from sweep.cluster.spot_fallback import score
from sweep.config.compose import load

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "cluster.yaml").read_text(encoding="utf-8")


@pytest.fixture
def written() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


@pytest.fixture
def prepared(written) -> dict[str, Any]:
    return prepare_config(written)


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def commands(config: dict[str, Any]) -> list[str]:
    return [command for name, value in config.items() if name.endswith("_commands") for command in value]


def starts(config: dict[str, Any]) -> list[str]:
    return [command for command in commands(config) if "ray start" in command]


@pytest.mark.parametrize("path", ["cluster.yaml", "deploy/gcp/cluster.yaml", "deploy/on_premises/cluster.yaml"])
def test_it_passes_rays_schema_and_rays_own_check(path):
    config = read(path)
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    validate_config(prepare_config(config))


@pytest.mark.parametrize("path", ["deploy/gcp/cluster.yaml", "deploy/on_premises/cluster.yaml"])
def test_other_clusters_are_as_closed_as_that_on_aws(path):
    config = prepare_config(read(path))
    assert all("RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token" in start for start in starts(config))
    assert "--dashboard-host=127.0.0.1" in next(start for start in starts(config) if "--head" in start)
    assert "0.0.0.0" not in yaml.safe_dump(config)
    assert "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token" in config["setup_commands"]


def test_the_head_runs_no_trials_and_is_not_a_spot_instance(prepared):
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


@pytest.mark.parametrize("path", ["cluster.yaml", "deploy/gcp/cluster.yaml"])
def test_workers_have_gpus_come_only_when_needed_and_are_spot_where_there_are_any(path):
    config = prepare_config(read(path))
    spot, dear = (config["available_node_types"][f"worker_{kind}"] for kind in ("spot", "on_demand"))
    assert (spot["min_workers"], spot["max_workers"], dear["min_workers"]) == (0, config["max_workers"], 0)
    assert spot["resources"] == dear["resources"] == {"CPU": 4, "GPU": 1}
    words = [yaml.safe_dump(one["node_config"]).lower() for one in (spot, dear)]
    assert ["spot" in one for one in words] == [True, False]
    assert not config["provider"]["cache_stopped_nodes"]
    assert "RAY_AUTOSCALER_UTILIZATION_SCORER=sweep.cluster.spot_fallback.score" in starts(config)[0]


def started(waiting: int, refused: set[str]) -> dict[str, int]:
    """What Ray's autoscaler starts for so many trials, after the cloud refused these types of node."""
    types = prepare_config(read("cluster.yaml"))["available_node_types"]
    records = {name: NodeAvailabilityRecord(name, False, 0.0, None) for name in refused}
    scorer = partial(score, node_availability_summary=NodeAvailabilitySummary(records))
    nodes, _ = get_nodes_for(types, {}, "head", 8, [{"CPU": 1.0, "GPU": 1.0}] * waiting, utilization_scorer=scorer)
    return dict(nodes)


def test_where_the_cloud_had_no_spot_instance_some_are_started_on_demand():
    assert started(3, refused=set()) == {"worker_spot": 3}
    assert started(3, refused={"worker_spot"}) == {"worker_on_demand": 2, "worker_spot": 1}
    assert started(3, refused={"worker_spot", "worker_on_demand"}) == {"worker_spot": 3}


def test_the_head_may_start_and_end_workers_of_its_cluster_and_nothing_else(written):
    types = written["available_node_types"]
    assert types["head"]["node_config"]["IamInstanceProfile"] == {"Name": "sweep-head"}
    assert all("IamInstanceProfile" not in one["node_config"] for name, one in types.items() if name != "head")
    policy = json.loads((ROOT / "deploy/aws/head_policy.json").read_text(encoding="utf-8"))
    allowed = {action for one in policy["Statement"] for action in [one["Action"]] for action in as_list(action)}
    assert allowed == {
        *("ec2:DescribeInstances", "ec2:DescribeImages", "ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances")
    }
    for one in policy["Statement"]:
        if any(action in ("ec2:TerminateInstances", "ec2:CreateTags") for action in as_list(one["Action"])):
            assert "Condition" in one
    text = json.dumps(policy)
    assert f'"{written["cluster_name"]}"' in text
    assert {types[name]["node_config"]["InstanceType"] for name in types if name != "head"} == {"g6.xlarge"}
    assert '"ec2:InstanceType": "g6.xlarge"' in text


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_a_machine_waits_for_its_first_boot_and_the_head_stops_by_itself(written):
    assert any("cloud-init status --wait" in command for command in written["initialization_commands"])
    assert all(
        "Lock::Timeout" in part
        for part in re.findall(r"apt-get [^&|)]*", yaml.safe_dump(commands(written), width=1000))
    )
    assert any("stop_when_idle.sh 60" in command for command in written["head_start_ray_commands"])
    assert written["available_node_types"]["head"]["node_config"]["InstanceInitiatedShutdownBehavior"] == "terminate"


def test_on_a_cloud_a_sweep_has_a_budget_in_money_unless_told_otherwise():
    config = load([f"--config-dir={ROOT}/deploy/conf", "--config-name=cloud"])
    assert (config.search.budget.money, config.cluster.autoscaling, config.runtime.resources.gpus) == (50.0, True, 1)
    assert config.runtime.runs_dir == "/shared/runs"


@pytest.mark.skipif(not shutil.which("pgrep"), reason="no pgrep here")
@pytest.mark.parametrize("at_work", [False, True])
def test_the_head_powers_itself_off_when_no_sweep_was_at_work_for_long(tmp_path, at_work):
    for name, body in (("sudo", f'echo "$@" > {tmp_path}/off'), ("who", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o700)
    # Nobody else's processes, of which some may be sweeps.
    (tmp_path / "pgrep").write_text(f'#!/bin/sh\nexec {shutil.which("pgrep")} -P {os.getpid()} "$@"\n')
    (tmp_path / "pgrep").chmod(0o700)
    sweep = [sys.executable, "-c", "import time; time.sleep(60)", "/bin/sweep", "resume", "x"]
    with ExitStack() as stack:
        if at_work:
            stack.callback(stack.enter_context(subprocess.Popen(sweep)).kill)
        command = ["sh", str(ROOT / "deploy/stop_when_idle.sh"), "2", "0.1"]
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        watch = stack.enter_context(subprocess.Popen(command, env=environment))
        stack.callback(watch.kill)
        with suppress(subprocess.TimeoutExpired):
            watch.wait(timeout=2 if at_work else 20)
    assert (tmp_path / "off").exists() is not at_work


# --- Kubernetes -------------------------------------------------------------------------------------------------------

# The fields of KubeRay 1.6's RayCluster and RayJob that its reference lists, those of the pods left to Kubernetes.
SPEC = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"),
    *("headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs"),
}
AUTOSCALER = {
    *("env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources", "securityContext"),
    *("upscalingMode", "version", "volumeMounts"),
}
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKERS = {
    *("groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams"),
    *("replicas", "resources", "scaleStrategy", "suspend", "template"),
}
JOB = {
    *(
        "activeDeadlineSeconds",
        "backoffLimit",
        "clusterSelector",
        "deletionStrategy",
        "entrypoint",
        "entrypointNumCpus",
    ),
    *("entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "preRunningDeadlineSeconds"),
    *("rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig"),
    *("submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
}


def ray_clusters() -> Iterator[dict[str, Any]]:
    yield read("deploy/kuberay/raycluster.yaml")["spec"]
    yield read("deploy/kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]


def test_manifests_have_only_fields_that_kuberay_knows():
    cluster, job = (read(f"deploy/kuberay/{name}.yaml") for name in ("raycluster", "rayjob"))
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"].keys() <= JOB
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"]).keys() == {"env_vars"}
    for spec in ray_clusters():
        assert spec.keys() <= SPEC
        assert spec["authOptions"].keys() <= {"mode", "secretName", "enableK8sTokenAuth"}
        assert spec["autoscalerOptions"].keys() <= AUTOSCALER
        assert spec["headGroupSpec"].keys() <= HEAD
        assert all(group.keys() <= WORKERS for group in spec["workerGroupSpecs"])


def test_pods_are_authenticated_unprivileged_and_share_the_runs():
    for spec in ray_clusters():
        assert spec["authOptions"]["mode"] == "token"
        assert spec["rayVersion"] == ray.__version__
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "the head runs no trials"
        (workers,) = spec["workerGroupSpecs"]
        assert workers["minReplicas"] == workers["replicas"] == 0
        for pod in (spec["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]):
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
            assert pod["containers"][0]["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert workers["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_cluster_of_the_job_is_the_same_but_for_its_dashboard_which_the_operator_asks():
    by_hand, of_job = ray_clusters()
    assert by_hand["headGroupSpec"]["rayStartParams"].pop("dashboard-host") == "127.0.0.1"
    assert by_hand == of_job


# --- machines that one has --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ray-head", "ray-worker", "sweep@"])
def test_a_service_comes_back_by_itself_whatever_ended_it(name):
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the parser's own name
    unit.read_string((ROOT / f"deploy/on_premises/{name}.service").read_text(encoding="utf-8").replace("\\\n", " "))
    service = unit["Service"]
    assert service["Restart"] in ("always", "on-failure")
    limits = {key: value for key, value in unit["Unit"].items() if key.startswith("StartLimit")}
    expected = {"StartLimitIntervalSec": "0"}  # else systemd gives up after five times
    if name == "sweep@":
        expected = {"StartLimitIntervalSec": "1h", "StartLimitBurst": "10"}
        assert float(service["RestartSec"]) * 10 < 3600
    assert limits == expected
    assert "RAY_AUTH_MODE=token" in service["Environment"]
    assert service["User"] == "sweep"
    assert ("--block" in service["ExecStart"]) is name.startswith("ray")
    assert "--dashboard-host=127.0.0.1" in service["ExecStart"] or name != "ray-head"


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
