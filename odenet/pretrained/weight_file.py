"""Files of weights, read without running code from them: others' state_dicts, safetensors, our own checkpoints."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the hash of a file is asked for before torch is loaded
    from torch import Tensor

CHECKPOINT = b"odenet checkpoint 1\n"  # how a file of training.checkpoint begins; its SHA-256 and a line feed follow
HEADER_BYTES = len(CHECKPOINT) + 65
WRAPPED = ("state_dict", "model", "weights")  # keys under which files have the state_dict beside other things
KINDS = "a state_dict of torch.save, a .safetensors file, or a checkpoint of this project"


class NoWeights(ValueError):
    """The file is not there, is damaged, or holds no weights."""


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Return the tensors of a file by their names, on the CPU.

    Raises:
        NoWeights: says what the file is instead, and what can be read.
    """
    path = Path(path)
    content = _content(path)
    if content.startswith(CHECKPOINT):
        if content[len(CHECKPOINT) : HEADER_BYTES - 1] != hashlib.sha256(content[HEADER_BYTES:]).hexdigest().encode():
            raise NoWeights(f"{path} is damaged: its {len(content)} bytes do not match their checksum.")
        content = content[HEADER_BYTES:]
    found = _safetensors(path, content) if path.suffix == ".safetensors" else _pickled(path, content)
    named = _state_dict(found)
    if not named:
        raise NoWeights(f"{path} holds no weights by names; {KINDS} can be read.")
    return named


def hash_of(path: Path | str) -> str:
    """Return the SHA-256 of a file in hex. NoWeights: as `read_weights`."""
    return hashlib.sha256(_content(Path(path))).hexdigest()


def _content(path: Path) -> bytes:
    if path.is_fifo():
        raise NoWeights(f"{path} is a named pipe, which would be waited for; {KINDS} can be read.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise NoWeights(f"{path} cannot be read ({error.strerror}); {KINDS} can be.") from error


def _safetensors(path: Path, content: bytes) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise NoWeights(f"{path} is no whole file of safetensors ({error}).") from error


def _pickled(path: Path, content: bytes) -> Any:
    import torch

    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, EOFError) as error:
        reason = f"{type(error).__name__} {error}".strip().splitlines()[0][:120]
        raise NoWeights(f"{path} holds something else than weights ({reason}); {KINDS} can be read.") from error


def _state_dict(found: Any) -> dict[str, Tensor]:
    if not isinstance(found, dict):
        return {}
    from torch import Tensor

    for key in WRAPPED:
        if isinstance(found.get(key), dict):
            return _state_dict(found[key])
    return {name: tensor for name, tensor in found.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
