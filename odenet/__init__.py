"""Networks that are continuous in depth: their integrators, weights as functions of depth, refinement and training.

Usable alone: `integrate` for any rate, `build_model`, `manifest`, `refine`, `load_data`, `Training`, `evaluate`.
"""

from odenet.checkpoint import Checkpoint, DamagedCheckpoint, load_checkpoint, save_checkpoint
from odenet.config import ExperimentConfig, RuntimeConfig, TrainingConfig
from odenet.data import Augment, DataConfig, DataSet, Order, Portion, load_data, load_test
from odenet.evaluation import Score, evaluate
from odenet.integrate import integrate
from odenet.models import ModelConfig, build_model, manifest
from odenet.optim import DepthMetric, OptimConfig, OptimizerKind, Schedule
from odenet.refinement import RefinementConfig, refine
from odenet.terms import Basis, Device, Network, Precision, Scheme
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
    "ModelConfig",
    "Network",
    "OptimConfig",
    "OptimizerKind",
    "Order",
    "Portion",
    "Precision",
    "RefinementConfig",
    "Report",
    "RuntimeConfig",
    "Schedule",
    "Scheme",
    "Score",
    "Training",
    "TrainingConfig",
    "build_model",
    "evaluate",
    "integrate",
    "load_checkpoint",
    "load_data",
    "load_test",
    "manifest",
    "refine",
    "save_checkpoint",
]
