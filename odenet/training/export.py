"""Networks that leave: written in a format that others read, and read back from there.

Every file has its description beside it, `NAME.json`: images, network, and where it comes from.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odenet.depth.discretisation import Depth
from odenet.enums import ExportFormat
from odenet.inference.classifier import Classifier, evaluating
from odenet.inference.image_format import ImageFormat
from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.model import build_model
from odenet.networks.model_config import ModelConfig
from odenet.training.config import from_plain, to_plain

KIND = "odenet classifier 1"
BATCH = 4  # images of the example that a graph is made from; it then takes any number


@dataclass(frozen=True, slots=True)
class Agreement:
    """The answers of a written network and its original to the same images, compared."""

    largest: float  # difference of two logits
    scale: float  # largest logit
    classes: int  # images on which the classes differ
    n: int

    @property
    def holds(self) -> bool:
        """Tell whether the two are one network: to rounding, which grows with the logits and the depth."""
        return self.largest <= 1e-3 * max(1.0, self.scale)


def check_exportable(classifier: Classifier, format: ExportFormat) -> None:
    """Raise ValueError where a network cannot be written so."""
    adaptive = {depth.course.scheme for depth in classifier.network.depths()} & set(ADAPTIVE)
    if adaptive and format is not ExportFormat.safetensors:
        raise ValueError(
            f"format={format.value} with model.scheme={adaptive.pop().value}: its steps depend on the images, which no "
            "fixed graph can hold; format=safetensors can be."
        )


def export_classifier(
    classifier: Classifier, path: Path | str, format: ExportFormat = ExportFormat.safetensors
) -> None:
    """Write a classifier to `path`, and its description to the same name with the ending .json.

    Raises:
        ValueError: its steps depend on the images, and the format is a graph. ImportError: the library of the format
            is not installed.

    >>> import tempfile
    >>> from odenet import ExperimentConfig, Training
    >>> classifier = Training(ExperimentConfig()).checkpoint().classifier()
    >>> with tempfile.TemporaryDirectory() as place:
    ...     export_classifier(classifier, f"{place}/mine.safetensors")
    ...     again = load_classifier(f"{place}/mine.safetensors")
    >>> x_BCHW = torch.rand(2, 1, 8, 8)
    >>> torch.equal(again(x_BCHW), classifier(x_BCHW))
    True
    """
    check_exportable(classifier, format)
    with evaluating(classifier):
        _WRITERS[format](classifier, Path(path))
    Path(path).with_suffix(".json").write_text(json.dumps(description(classifier), indent=2) + "\n", encoding="utf-8")


def description(classifier: Classifier) -> dict[str, Any]:
    """Return all of a classifier but its weights, as plain JSON values."""
    network = classifier.network
    return {
        "kind": KIND,
        "input": {"name": "images", "shape": ["batch", *classifier.input_size], "type": "float32", "range": [0, 1]},
        "output": {"name": "logits", "shape": ["batch", classifier.classes]},
        "images": to_plain(classifier.images),
        "model": to_plain(network.config),
        "depths": [to_plain(depth) for depth in network.depths()],
        "about": classifier.about,
    }


def load_classifier(path: Path | str, device: torch.device | str = "cpu") -> Classifier:
    """Read a classifier from its safetensors file and the JSON file beside it; no code from either is run.

    Raises:
        ValueError: one of them is something else, or they do not belong together. OSError: one cannot be read.
        ImportError: safetensors is not installed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    beside = path.with_suffix(".json")
    try:
        plain = json.loads(beside.read_text(encoding="utf-8"))
        if plain.get("kind") != KIND:
            raise ValueError(f"its kind is {plain.get('kind')!r}, not {KIND!r}")
        images = from_plain(ImageFormat, plain["images"])
        depths = [from_plain(Depth, depth) for depth in plain["depths"]]
        classes, config = len(images.labels), from_plain(ModelConfig, plain["model"])
        network = build_model(config, channels=images.channels, classes=classes, depths=depths)
        network.load_state_dict(load_file(path))
        return Classifier(network.to(device), images, plain["about"])
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} with {beside.name} is no exported network of this version: {error}") from error


def agreement(classifier: Classifier, path: Path | str, format: ExportFormat, images_BCHW: Tensor) -> Agreement:
    """Run a written network and its original on float images in [0, 1], and compare them.

    Raises:
        ImportError: the library that runs the format is not installed.
    """
    run, found, expected = _RUNNERS[format](Path(path)), [], []
    with evaluating(classifier):
        for part in images_BCHW.split(500):
            found.append(run(part))
            expected.append(classifier(part.to(classifier.scale_C11.device)).cpu())
    one_BK, other_BK = torch.cat(found), torch.cat(expected)
    differ = int((one_BK.argmax(1) != other_BK.argmax(1)).sum())
    return Agreement(float((one_BK - other_BK).abs().max()), float(other_BK.abs().max()), differ, len(other_BK))


# --- one way to write, and one to run, for each format ------------------------------------------------------------


def _write_safetensors(classifier: Classifier, path: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.network.state_dict().items()}
    save_file(weights, path)


def _program(classifier: Classifier) -> torch.export.ExportedProgram:
    example_BCHW = torch.rand(BATCH, *classifier.input_size, device=classifier.scale_C11.device)
    program = torch.export.export(classifier, (example_BCHW,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names paths of this machine
    return program


def _write_pt2(classifier: Classifier, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the archive's own, about constants that are views
        torch.export.save(_program(classifier), path)


def _write_onnx(classifier: Classifier, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its dependencies
        converted = torch.onnx.export(
            _program(classifier), verbose=False, input_names=["images"], output_names=["logits"]
        )
    assert converted is not None
    converted.save(path)


def _run_safetensors(path: Path) -> Callable[[Tensor], Tensor]:
    return load_classifier(path)


def _run_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def _run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(path)
    return lambda images_BCHW: torch.from_numpy(session.run(["logits"], {"images": images_BCHW.numpy()})[0])


_WRITERS: dict[ExportFormat, Callable[[Classifier, Path], None]] = {
    ExportFormat.safetensors: _write_safetensors,
    ExportFormat.onnx: _write_onnx,
    ExportFormat.pt2: _write_pt2,
}
_RUNNERS: dict[ExportFormat, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    ExportFormat.safetensors: _run_safetensors,
    ExportFormat.onnx: _run_onnx,
    ExportFormat.pt2: _run_pt2,
}
