"""MLflow's registry: the network of a checkpoint as a model that is right wherever it is loaded.

What is registered is an `odenet.Classifier` as a pickle, which keeps all that it can do, and beside it the code of
odenet, which loading puts first on the path: odenet need not be installed. A graph that needs no code at all is written
by `sweep export`.
"""

import os
import zlib
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config.modules import own_code
from sweep.tracking.lines import CHAMPION, ID, Line, RefusedError
from sweep.tracking.outbox import MLFLOW_ENVIRONMENT

os.environ |= MLFLOW_ENVIRONMENT

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion

import odenet
from odenet.integrators.schemes import ADAPTIVE

if TYPE_CHECKING:  # torch is loaded once there is a model to be registered
    from mlflow.models import ModelSignature

    from odenet.inference.classifier import Classifier

EXAMPLES = 2  # images of the input example


class Registry:
    """The registered models of a store. What is done twice changes nothing."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id

    def register(self, line: Line, run_id: str, doubtful: bool) -> None:
        """Register the network of a line's checkpoint with the alias champion, and describe it.

        Raises:
            RefusedError: the checkpoint is another one by now, or cannot be read.
        """
        name = line["name"]
        uri = (self._made(line) if doubtful else None) or _log(line, run_id)
        found = self._versions(name) if doubtful else []
        version = next((one for one in found if one.tags.get(ID) == line["id"]), None)
        if version is None:
            version = mlflow.register_model(uri, name, tags={ID: line["id"]})
        self._client.set_registered_model_alias(name, CHAMPION, str(version.version))
        if "card" in line:  # not in lines of before
            self._say(line, version)

    def describe(self, line: Line, run_id: str) -> None:
        """Describe the newest version anew that was registered from a run; nothing where it was removed, or is in
        another store."""
        found = [one for one in self._versions(line["name"]) if one.run_id == run_id]
        if found:
            self._say(line, max(found, key=lambda one: int(one.version)))

    def _versions(self, name: str) -> list[ModelVersion]:
        return list(self._client.search_model_versions(f"name = '{name}'"))

    def _say(self, line: Line, version: ModelVersion) -> None:
        client, name, tags = self._client, line["name"], line["tags"]
        client.update_registered_model(
            name, f"The networks of the sweep {name}; the alias {CHAMPION} is the one to use."
        )
        client.update_model_version(name, version.version, line["summary"])
        for key, value in tags.items():
            client.set_model_version_tag(name, version.version, key, value)
        source, _, model_id = str(version.source).rpartition("models:/")
        if not source and model_id:  # a version that was registered by its files alone has no logged model
            client.set_logged_model_tags(model_id, tags)
            if Path(line["card"]).is_file():
                client.log_model_artifact(model_id, line["card"])

    def _made(self, line: Line) -> str | None:
        """Find the whole model that the line has made; remove what it has left unfinished."""
        found = self._client.search_logged_models([self._experiment_id], filter_string=made_by(line))
        uri = None
        for model in found:
            if model.status is not LoggedModelStatus.READY:
                self._client.delete_logged_model(model.model_id)
            elif uri is None:
                uri = model.model_uri
        return uri


def made_by(line: Line) -> str:
    """Return MLflow's filter for what a line has made."""
    return f"tags.`{ID}` = '{line['id']}'"


def _log(line: Line, run_id: str) -> str:
    """Log the network as a model of the run and return its address."""
    import mlflow.pytorch

    classifier = _read(line)
    code = [Path(odenet.__file__).parent, *own_code(classifier.network.config.network)]
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pytorch.log_model(
            classifier,
            name="model",
            serialization_format="pickle",
            code_paths=[str(path) for path in code],
            pip_requirements=_requirements(classifier),
            signature=_signature(classifier),
            input_example=_example(classifier),
            metadata=_metadata(classifier),
            tags={ID: line["id"]},
        )
    return logged.model_uri


def _read(line: Line) -> "Classifier":
    from odenet.training.checkpoint import load_checkpoint

    path, checksum = Path(line["path"]), line.get("checksum")  # None in lines of version 0.1.0
    try:
        if checksum not in {None, zlib.crc32(path.read_bytes())}:
            raise RefusedError(f"the checkpoint {path} is another one by now")
        return load_checkpoint(path).classifier()
    except (OSError, ValueError) as error:
        raise RefusedError(f"the checkpoint {path} cannot be read: {error}") from error


def _requirements(classifier: "Classifier") -> list[str]:
    """List what loading needs besides MLflow and the code that goes along; no index has local labels such as +cpu."""
    names = ["torch", "numpy"]
    if any(depth.course.scheme in ADAPTIVE for depth in classifier.network.depths()):
        names.append("torchdiffeq")
    return [f"{name}=={version_of(name).partition('+')[0]}" for name in names]


def _signature(classifier: "Classifier") -> "ModelSignature":
    """Return that of `Classifier.forward`: float images in [0, 1] to logits."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype("float32"), (-1, *classifier.input_size))
    logits = TensorSpec(np.dtype("float32"), (-1, classifier.classes))
    return ModelSignature(Schema([images]), Schema([logits]))


def _example(classifier: "Classifier") -> np.ndarray:
    shape = (EXAMPLES, *classifier.input_size)
    return np.linspace(0.0, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def _metadata(classifier: "Classifier") -> dict[str, Any]:
    from odenet.training.export import description

    return {**description(classifier), "raw_range": list(classifier.raw_range), "labels": classifier.labels}
