"""Every random draw comes from a generator derived from (seed, purpose, indices); none is carried along or stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *indices: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments: equal on every machine, distinct between purposes."""
    text = "/".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """A fresh CPU generator. Draws are made on the CPU and moved, so that a GPU sees the same numbers."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, *indices))


@contextmanager
def global_seed(seed: int, purpose: str, *indices: int) -> Iterator[None]:
    """Seeds torch's global CPU generator inside the block, for constructors that take none, and restores it after."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose, *indices))
        yield
