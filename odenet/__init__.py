"""Networks that are continuous in depth: their integrators, weights as functions of depth, refinement and training.

Usable alone: `integrate` for any rate, `build_model`, `manifest`, `refine`, `load_data`, `Training`, `evaluate`.
"""

import sys

from odenet.data import Augment, DataConfig, DataSet, Order, Portion, load_data, load_test
from odenet.enums import Basis, Device, Gradient, Initialisation, Network, Precision, Scheme, Start
from odenet.integrators.integrate import integrate
from odenet.networks.model import build_model, manifest
from odenet.networks.model_config import ModelConfig
from odenet.networks.refinement import Projection, RefinementConfig, coarsen, project, refine
from odenet.renamed import FormerNames
from odenet.training.checkpoint import Checkpoint, DamagedCheckpoint, load_checkpoint, save_checkpoint
from odenet.training.config import ExperimentConfig, RuntimeConfig, TrainingConfig
from odenet.training.evaluation import Score, evaluate
from odenet.training.loop import Diverged, Report, Training
from odenet.training.optim import DepthMetric, OptimConfig, OptimizerKind, Schedule
from odenet.training.regularization import RegularizationConfig

sys.meta_path.insert(0, FormerNames())

__all__ = [
    "Augment",
    "Basis",
    "Checkpoint",
    "DamagedCheckpoint",
    "DataConfig",
    "DataSet",
    "DepthMetric",
    "Device",
    "Diverged",
    "ExperimentConfig",
    "Gradient",
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
    "Training",
    "TrainingConfig",
    "build_model",
    "coarsen",
    "evaluate",
    "integrate",
    "load_checkpoint",
    "load_data",
    "load_test",
    "manifest",
    "project",
    "refine",
    "save_checkpoint",
]
