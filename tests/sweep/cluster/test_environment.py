"""What Ray's processes get of the user's environment."""

import os

import pytest
from ray.tune.execution import class_cache

from sweep.cluster.environment import environment, only_allowed
from sweep.config.schema import ClusterConfig, ClusterKind
from sweep.execution.ray_adapter import unburden
from sweep.worker.trainable import SegmentTrainable

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
