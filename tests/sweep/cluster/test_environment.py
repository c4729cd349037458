"""What Ray's processes get of the user's environment."""

import os
import subprocess
import sys

import pytest
from ray.tune.execution import class_cache

import sweep
from sweep.cluster.environment import environment, only_allowed
from sweep.config.schema import ClusterConfig, ClusterKind
from sweep.execution.ray_adapter import unburden
from sweep.interpreter import python_environment
from sweep.tracking.environment import mlflow_environment
from sweep.worker.trainable import SegmentTrainable

PATIENCE = "RAY_raylet_start_wait_time_s"
METRICS = "RAY_enable_metrics_collection"
SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN", "GITHUB_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "PGPASSWORD", "KUBECONFIG", "SSH_AUTH_SOCK",
    "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET", "DATABASE_URL",
)  # fmt: skip
NEEDED = (
    "PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "RAY_AUTH_TOKEN", "RAY_memory_usage_threshold",
    "CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "https_proxy", "NO_PROXY",
    "PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_CACHE_DIR",
)  # fmt: skip


def test_processes_started_inside_see_what_training_needs_and_no_secret(monkeypatch):
    for name in (*SECRETS, *NEEDED):
        monkeypatch.setenv(name, "x")
    before = dict(os.environ)
    with only_allowed():
        assert set(NEEDED) <= set(os.environ)
        assert not set(SECRETS) & set(os.environ)
    assert dict(os.environ) == before
    with pytest.raises(KeyboardInterrupt), only_allowed():
        raise KeyboardInterrupt
    assert dict(os.environ) == before


def test_what_would_have_ray_do_something_else_is_hidden_while_it_is_connected(monkeypatch):
    steering = ("TUNE_RESULT_BUFFER_LENGTH", "RAY_CLIENT_MODE", "RAY_OVERRIDE_RESOURCES", "RAY_RUNTIME_ENV_HOOK")
    for name in (*steering, "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONINSPECT", PATIENCE):
        monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    with environment(ClusterConfig()):
        assert not set(steering) & set(os.environ)
        assert os.environ[PATIENCE] == "7"  # which is about this machine
        with only_allowed():
            assert not {"PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONINSPECT"} & set(os.environ)
    assert dict(os.environ) == before


def test_another_python_process_imports_what_this_one_does_wherever_it_is_started(tmp_path, monkeypatch):
    (tmp_path / "sweep.py").write_text("raise SystemExit('of the working directory')")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    ask = [sys.executable, "-c", "import sweep; print(sweep.__file__)"]
    there = subprocess.run(
        ask, env=python_environment(), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (there.stdout.strip(), there.stderr) == (sweep.__file__, "")


def test_mlflow_gets_of_its_variables_how_a_server_is_reached_and_who_asks(monkeypatch):
    kept = {"MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_S3_ENDPOINT_URL"}
    steering = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"}
    steering |= {"MLFLOW_ENABLE_ASYNC_LOGGING", "_MLFLOW_ACTIVE_MODEL_ID"}
    for name in kept | steering:
        monkeypatch.setenv(name, "x")
    assert mlflow_environment().keys() & (kept | steering) == kept


def test_ray_tune_forwards_nothing(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    unburden()
    actor = class_cache._ActorClassCache().get(SegmentTrainable)
    assert actor._default_options["runtime_env"] == {}  # which is that of workers started beforehand


def test_a_local_ray_measures_nothing_and_listens_on_loopback_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv(METRICS, raising=False)
    with environment(ClusterConfig()):
        assert os.environ[METRICS] == "false"
    with environment(ClusterConfig(kind=ClusterKind.address, address="auto")):
        assert METRICS not in os.environ
    monkeypatch.setenv(METRICS, "true")
    with environment(ClusterConfig()):
        assert os.environ[METRICS] == "true"
