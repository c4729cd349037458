"""progress.json: the wall-clock time that a sweep has spent in all its sessions, and whether its work is done."""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from sweep.errors import InputError
from sweep.records.files import read_bytes, write_text


@dataclass(slots=True)
class SweepProgress:
    """The content of progress.json. `wall_clock` adds the present session to the seconds of former ones."""

    seconds: float = 0.0  # of former sessions
    finished: bool = False
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, file: Path) -> "SweepProgress":
        """Read progress.json; start at zero where there is none. InputError: the file is damaged."""
        if not file.exists():
            return cls()
        try:
            content = json.loads(read_bytes(file))
            seconds, finished = float(content["seconds"]), content["finished"]
            if not (0 <= seconds < math.inf and isinstance(finished, bool)):
                raise ValueError(f"seconds={seconds}, finished={finished!r}")
            return cls(seconds, finished)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(f"{file} is damaged: {error!r}. Remove it; only the wall clock is lost.") from error

    def write(self, file: Path) -> None:
        write_text(file, json.dumps({"seconds": self.wall_clock, "finished": self.finished}) + "\n")

    @property
    def wall_clock(self) -> float:
        return self.seconds + time.monotonic() - self.started
