"""The environment of processes that speak to MLflow, or are MLflow."""

from fnmatch import fnmatchcase

from sweep.interpreter import python_environment

# How a server is reached, and who asks. Any other variable of MLflow's could lead to another store, run or experiment,
# or log what nobody asked for.
KEPT = (
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH"),
    *("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_*_CERT_PATH", "MLFLOW_WORKSPACE"),
    *("MLFLOW_HTTP_*", "MLFLOW_ALLOW_HTTP_REDIRECTS", "MLFLOW_ARTIFACT_*", "MLFLOW_*MULTIPART*"),
    *("MLFLOW_S3_*", "MLFLOW_BOTO_*", "MLFLOW_GCS_*", "MLFLOW_KERBEROS_*", "MLFLOW_PYARROW_*"),
    *("MLFLOW_SQLALCHEMYSTORE_*", "MLFLOW_MYSQL_SSL_*"),
)
# What to do where a server does not take who asks. The file is read at every attempt, also by a command that runs.
CREDENTIALS = (
    "write user and password to ~/.mlflow/credentials (mode 0600: [mlflow], mlflow_tracking_username = ..., "
    "mlflow_tracking_password = ...), or say MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
    "MLFLOW_TRACKING_TOKEN"
)


def mlflow_environment() -> dict[str, str]:
    """Return the environment of this process without what of MLflow's in it is for other programs."""
    return {name: value for name, value in python_environment().items() if _is_kept(name)}


def _is_kept(name: str) -> bool:
    return not name.startswith(("MLFLOW_", "_MLFLOW_")) or any(fnmatchcase(name, pattern) for pattern in KEPT)
