"""`sweep export NAME`: write the champion in a format that others read, and check what was written on the test images.

Nothing is measured on them: the written network must answer what the original answers.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from torch import Tensor

from odenet.data.sets import load_test
from odenet.enums import ExportFormat
from odenet.inference.classifier import Classifier
from odenet.training.checkpoint import load_checkpoint
from odenet.training.export import agreement, check_exportable, export_classifier
from sweep.config.schema import AppConfig
from sweep.console import say
from sweep.errors import InputError, WorkError
from sweep.execution.mlflow_runs import model_name
from sweep.records.files import storing
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import SweepFiles, run_directory
from sweep.records.tables import read_rows

NEEDED = {
    ExportFormat.safetensors: ("safetensors",),
    ExportFormat.onnx: ("onnx", "onnxscript", "onnxruntime"),
    ExportFormat.pt2: (),
}
READ_BACK = {
    ExportFormat.safetensors: 'odenet.load_classifier("{path}"), which runs no code from it',
    ExportFormat.onnx: 'onnxruntime.InferenceSession("{path}"), without odenet or torch',
    ExportFormat.pt2: 'torch.export.load("{path}").module(), without odenet',
}


@dataclass(frozen=True, slots=True)
class PreparedExport:
    """The champion and its trial, the images to check with, the format, and the file to be written."""

    classifier: Classifier
    row: TrialRow
    images_BCHW: Tensor
    format: ExportFormat
    target: Path


def prepare_export(config: AppConfig, name: str) -> PreparedExport:
    """Read the first final network that ended done, and the test images.

    Raises:
        InputError: there is none, it cannot be written so, a library is missing, or the data is not there.
    """
    files, format = SweepFiles(run_directory(config, name)), config.export.format
    if files.study.exists():
        raise InputError(f"{name} is a study: export the network of one of its sweeps, {name}/FAMILY-dDRAW.")
    final = read_rows(files.final.trials, TrialRow) if files.final.trials.exists() else []
    done = [row for row in final if row.phase is Phase.final and row.outcome is Outcome.done]
    if not done:
        raise InputError(f"{name} has no final network: run `sweep final {name}` first.")
    missing = [library for library in NEEDED[format] if find_spec(library) is None]
    if missing:
        raise InputError(f"format={format.value} needs {', '.join(missing)}: install it, or choose another format.")
    first = min(done, key=lambda row: row.number)
    try:
        classifier = load_checkpoint(files.checkpoint(first.number)).classifier(data_dir=config.runtime.data_dir)
        check_exportable(classifier, format)
        test = load_test(config.data, config.runtime.data_dir)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    target = files.exported / f"{model_name(name)}.{format.value}"
    return PreparedExport(classifier, first, torch.from_numpy(test.pixels_BCHW).float() / 255, format, target)


def export(prepared: PreparedExport, console: Console) -> None:
    """Write the file and its description, compare it with the network, and keep it only if the two agree.

    Raises:
        WorkError: they do not agree. StorageError: it cannot be written.
    """
    target, row = prepared.target, prepared.row
    with storing(target, 0):
        target.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as place:
            written = Path(place, target.name)
            export_classifier(prepared.classifier, written, prepared.format)
            found = agreement(prepared.classifier, written, prepared.format, prepared.images_BCHW)
            difference = (
                f"on {found.n} test images logits differ by {found.largest:.2g} at most (the largest is "
                f"{found.scale:.3g}), the predicted class on {found.classes or 'none'} of them"
            )
            if not found.holds:
                raise WorkError(f"{target} is not kept, because it is another network once written: {difference}.")
            for file in Path(place).iterdir():
                file.replace(target.parent / file.name)
    say(f"{target}: final trial {row.number}, seed {row.seed}; what it is stands beside it, in .json", console)
    say(f"Checked after writing: {difference}.", console)
    say(f"To read it: {READ_BACK[prepared.format].format(path=target)}.", console)
