"""Networks that are continuous in depth: their integrators, weights as functions of depth, refinement and training.

Usable alone: `integrate` for any rate, `build_model`, `manifest`, `refine`, `load_data`, `Training`, `evaluate`, and
`Classifier`, a trained network as it is used elsewhere. A name is loaded when it is first asked for: configurations and
enumerations load no torch.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from odenet.renamed import FormerNames

if TYPE_CHECKING:
    from odenet.data.config import Augment, DataConfig, DataSet, Order, Portion
    from odenet.data.sets import load_test
    from odenet.data.subsets import balanced_test, load_data
    from odenet.depth.projection import Projection
    from odenet.diagnostics.diagnose import Diagnosis, diagnose
    from odenet.diagnostics.manifesting import validity
    from odenet.diagnostics.reestimate import reestimate
    from odenet.diagnostics.validity import Validity
    from odenet.enums import (
        Basis,
        Corruption,
        Device,
        ExportFormat,
        Gradient,
        Initialisation,
        Network,
        Precision,
        Scheme,
        Start,
        Stem,
    )
    from odenet.inference.classifier import Classifier
    from odenet.inference.image_format import ImageFormat
    from odenet.integrators.integrate import integrate
    from odenet.networks.model import build_model, manifest
    from odenet.networks.model_config import ModelConfig
    from odenet.networks.refinement import coarsen, project, refine
    from odenet.networks.table import add_networks
    from odenet.pretrained.initial import begin_with
    from odenet.robustness.attacked import attack
    from odenet.robustness.cells import Cells
    from odenet.robustness.config import AttackConfig
    from odenet.robustness.corrupted import Corrupted, corrupted
    from odenet.robustness.corruptions import corrupt, corruptions_for
    from odenet.training.checkpoint import Checkpoint, DamagedCheckpoint, load_checkpoint, save_checkpoint
    from odenet.training.config import ExperimentConfig, RuntimeConfig, TrainingConfig
    from odenet.training.evaluation import Score, evaluate
    from odenet.training.export import export_classifier, load_classifier
    from odenet.training.loop import Diverged, Report, Training
    from odenet.training.optim_config import DepthMetric, OptimConfig, OptimizerKind, Schedule
    from odenet.training.refinement_config import RefinementConfig
    from odenet.training.regularization_config import RegularizationConfig

# Networks that were pickled before modules moved into folders find their classes.
sys.meta_path.insert(0, FormerNames())

# The module of each name, without "odenet.": what type checkers read above, a test holds the two against each other.
_MODULES: dict[str, tuple[str, ...]] = {
    "data.config": ("Augment", "DataConfig", "DataSet", "Order", "Portion"),
    "data.sets": ("load_test",),
    "data.subsets": ("balanced_test", "load_data"),
    "depth.projection": ("Projection",),
    "diagnostics.diagnose": ("Diagnosis", "diagnose"),
    "diagnostics.manifesting": ("validity",),
    "diagnostics.reestimate": ("reestimate",),
    "diagnostics.validity": ("Validity",),
    "enums": (
        "Basis",
        "Corruption",
        "Device",
        "ExportFormat",
        "Gradient",
        "Initialisation",
        "Network",
        "Precision",
        "Scheme",
        "Start",
        "Stem",
    ),
    "integrators.integrate": ("integrate",),
    "inference.classifier": ("Classifier",),
    "inference.image_format": ("ImageFormat",),
    "networks.model": ("build_model", "manifest"),
    "networks.model_config": ("ModelConfig",),
    "networks.refinement": ("coarsen", "project", "refine"),
    "networks.table": ("add_networks",),
    "pretrained.initial": ("begin_with",),
    "robustness.attacked": ("attack",),
    "robustness.cells": ("Cells",),
    "robustness.config": ("AttackConfig",),
    "robustness.corrupted": ("Corrupted", "corrupted"),
    "robustness.corruptions": ("corrupt", "corruptions_for"),
    "training.checkpoint": ("Checkpoint", "DamagedCheckpoint", "load_checkpoint", "save_checkpoint"),
    "training.config": ("ExperimentConfig", "RuntimeConfig", "TrainingConfig"),
    "training.evaluation": ("Score", "evaluate"),
    "training.export": ("export_classifier", "load_classifier"),
    "training.loop": ("Diverged", "Report", "Training"),
    "training.optim_config": ("DepthMetric", "OptimConfig", "OptimizerKind", "Schedule"),
    "training.refinement_config": ("RefinementConfig",),
    "training.regularization_config": ("RegularizationConfig",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AttackConfig",
    "Augment",
    "Basis",
    "Cells",
    "Checkpoint",
    "Classifier",
    "Corrupted",
    "Corruption",
    "DamagedCheckpoint",
    "DataConfig",
    "DataSet",
    "DepthMetric",
    "Device",
    "Diagnosis",
    "Diverged",
    "ExperimentConfig",
    "ExportFormat",
    "Gradient",
    "ImageFormat",
    "Initialisation",
    "ModelConfig",
    "Network",
    "OptimConfig",
    "OptimizerKind",
    "Order",
    "Portion",
    "Precision",
    "Projection",
    "RefinementConfig",
    "RegularizationConfig",
    "Report",
    "RuntimeConfig",
    "Schedule",
    "Scheme",
    "Score",
    "Start",
    "Stem",
    "Training",
    "TrainingConfig",
    "Validity",
    "add_networks",
    "attack",
    "balanced_test",
    "begin_with",
    "build_model",
    "coarsen",
    "corrupt",
    "corrupted",
    "corruptions_for",
    "diagnose",
    "evaluate",
    "export_classifier",
    "integrate",
    "load_checkpoint",
    "load_classifier",
    "load_data",
    "load_test",
    "manifest",
    "project",
    "reestimate",
    "refine",
    "save_checkpoint",
    "validity",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module, and keep it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
