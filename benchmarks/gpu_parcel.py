"""Files in batches that can be carried one by one: large ones are cut, and each piece is known by its sha256.

batch-1/ batch-2/ ...   the pieces, at most 25 MB each, and at most 56 MB in a batch: with a checkout below 64 MiB
batch-*/parcel.json     the same in each: of each file its pieces in their order, with their sha256
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PIECE_BYTES = 25_000_000
BATCH_BYTES = 56_000_000
LIST = "parcel.json"
Pieces = dict[str, dict[str, str]]  # by file: sha256 by the name of the piece


class DamagedParcel(ValueError):
    """A piece is missing, or is not what was packed."""


@dataclass(slots=True)
class Batch:
    """A folder, and how much is in it."""

    folder: Path
    bytes: int = 0
    files: set[str] = field(default_factory=set)


def pack(source: Path, folder: Path) -> list[Batch]:
    """Cut all files below `source` and put the pieces into batches, each where it fits first, the largest first."""
    pieces: Pieces = {}
    batches: list[Batch] = []
    for file in sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size):
        name = str(file.relative_to(source))
        if any(Path(other).name == file.name for other in pieces):
            raise ValueError(f"two files are called {file.name}: their pieces would be, too.")
        pieces[name] = {}
        for number, content in enumerate(_cut(file)):
            batch = next((one for one in batches if one.bytes + len(content) <= BATCH_BYTES), None)
            if batch is None:
                batch = Batch(folder / f"batch-{len(batches) + 1}")
                batch.folder.mkdir(parents=True)
                batches.append(batch)
            piece = f"{file.name}.{number}"
            (batch.folder / piece).write_bytes(content)
            pieces[name][piece] = hashlib.sha256(content).hexdigest()
            batch.bytes += len(content)
            batch.files.add(name)
    for batch in batches:
        (batch.folder / LIST).write_text(json.dumps(pieces, indent=1) + "\n")
    return batches


def _cut(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while content := stream.read(PIECE_BYTES):
            yield content


def unpack(folder: Path, target: Path) -> list[str]:
    """Join what the batches below `folder` hold, wherever each lies; the files' names.

    Raises:
        DamagedParcel: naming what is missing, or has another sha256.
    """
    there = {path.name: path for path in folder.rglob("*") if path.is_file()}
    if LIST not in there:
        raise DamagedParcel(f"no {LIST} lies below {folder}: carry a batch there, or pack anew.")
    pieces: Pieces = json.loads(there[LIST].read_text())
    missing = [piece for parts in pieces.values() for piece in parts if piece not in there]
    if missing:
        raise DamagedParcel(f"{folder} lacks {len(missing)} pieces, {missing[0]} first: carry all batches there.")
    for name, parts in pieces.items():
        contents = [there[piece].read_bytes() for piece in parts]
        for (piece, digest), content in zip(parts.items(), contents, strict=True):
            if hashlib.sha256(content).hexdigest() != digest:
                raise DamagedParcel(f"{there[piece]} has another sha256 than {LIST} says: carry its batch there again.")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"".join(contents))
    return list(pieces)
