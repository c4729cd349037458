"""The data: published sets, class-balanced low-data draws of them, and augmented batches on a device."""

from odenet.data.batches import Batches, Statistics
from odenet.data.config import Augment, DataConfig, DataSet, Order, Portion
from odenet.data.sets import SETS, DamagedData, Images, MissingData, duplicate_free, load_test
from odenet.data.subsets import Splits, load_data

__all__ = [
    "SETS",
    "Augment",
    "Batches",
    "DamagedData",
    "DataConfig",
    "DataSet",
    "Images",
    "MissingData",
    "Order",
    "Portion",
    "Splits",
    "Statistics",
    "duplicate_free",
    "load_data",
    "load_test",
]
