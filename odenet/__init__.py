"""Networks that are continuous in depth: their integrators, weights as functions of depth, refinement and training.

Usable alone: `integrate` for any rate, `build_model`, `manifest`, `refine`, `load_data`, `Training`, `evaluate`.
"""

from odenet.checkpoint import Checkpoint, DamagedCheckpoint, load_checkpoint, save_checkpoint
from odenet.config import ExperimentConfig, RuntimeConfig, TrainingConfig
from odenet.data import Augment, DataConfig, DataSet, Order, Portion, load_data, load_test
from odenet.evaluation import Score, evaluate
from odenet.integrate import integrate
from odenet.model_config import ModelConfig
from odenet.models import build_model, manifest
from odenet.optim import DepthMetric, OptimConfig, OptimizerKind, Schedule
from odenet.refinement import Projection, RefinementConfig, coarsen, project, refine
from odenet.regularization import RegularizationConfig
from odenet.terms import Basis, Device, Gradient, Initialisation, Network, Precision, Scheme, Start
from odenet.training import Diverged, Report, Training

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
