"""How a device multiplies: the flags of `torch.backends` that decide it are set here, and nowhere else.

By default torch rounds to TF32 what a GPU's convolutions multiply, and not what its matrices do.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from odenet.enums import Precision

CONVOLUTIONS, MATRICES = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Inside the block a GPU multiplies fp32 numbers as they are, or rounded to TF32 where the precision is lower, also
    in backward passes; a CPU always as they are. Before and after it everything is as others have set it."""
    before = CONVOLUTIONS.fp32_precision, MATRICES.fp32_precision
    CONVOLUTIONS.fp32_precision = MATRICES.fp32_precision = rounding(precision)
    try:
        yield
    finally:
        CONVOLUTIONS.fp32_precision, MATRICES.fp32_precision = before


def rounding(precision: Precision) -> str:
    """Return torch's word for what fp32 factors are rounded to.

    >>> rounding(Precision.fp32), rounding(Precision.bf16)
    ('ieee', 'tf32')
    """
    return "ieee" if precision is Precision.fp32 else "tf32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context of a forward pass: bf16 where that is the precision, no autocast elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.bf16)


def recorded(device: torch.device, precision: Precision, no_graph_because: str = "") -> dict[str, str]:
    """Say what computed and how, for the record of a training.

    >>> recorded(torch.device("cpu"), Precision.bf16)
    {'device': 'cpu'}
    """
    if device.type != "cuda":
        return {"device": device.type}
    return {
        "device": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "fp32 products": rounding(precision),
        "cudnn.benchmark": str(torch.backends.cudnn.benchmark).lower(),
        "cuda graph": f"none, because {no_graph_because}" if no_graph_because else "an iteration",
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
    }
