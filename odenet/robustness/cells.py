"""What a long evaluation has computed so far, a file for each part of it: an evaluation that was killed goes on."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PartDone = Callable[[str, int, int], None]  # name of the part that is there now, how many are, of how many


@dataclass(frozen=True, slots=True)
class Cells:
    """A directory of parts (none: nothing is kept) and who is told of each.

    A part is a JSON file that is whole or absent. It names what it was computed from, so that a file of another
    network, other images or settings is refused and not taken for this one.
    """

    directory: Path | str | None = None
    progress: PartDone | None = None

    def get(self, name: str, source: Any, compute: Callable[[], Any]) -> Any:
        """Return the part's plain JSON values, computed and kept unless they are there.

        Raises:
            ValueError: the file is of another source, or damaged.
            OSError: it cannot be read or written.
        """
        if self.directory is None:
            return compute()
        path, digest = Path(self.directory) / f"{name}.json", digest_of(source)
        try:
            return _read(path, digest)
        except FileNotFoundError:
            value = compute()
            _write(path, {"source": digest, "value": value})
            return value

    def tell(self, name: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(name, done, total)


def digest_of(source: Any) -> str:
    """Return the same 32 digits for equal plain values."""
    return hashlib.blake2b(json.dumps(source, sort_keys=True).encode(), digest_size=16).hexdigest()


def _read(path: Path, digest: str) -> Any:
    text = path.read_text()
    try:
        found = json.loads(text)
        source, value = found["source"], found["value"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to compute this part again.") from error
    if source != digest:
        raise ValueError(
            f"{path} was computed from another network, other images or settings: name another directory, or remove "
            "the file to compute this part again."
        )
    return value


def _write(path: Path, content: Any) -> None:
    """Write beside the target, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
