"""stage.json: which stage was begun last on a sweep or study, so that `sweep resume` need not guess."""

import json
from enum import Enum
from pathlib import Path

from sweep.errors import InputError
from sweep.records.files import read_bytes, write_text


class BegunStage(Enum):
    """A stage that can be cut short and resumed."""

    study = "study"
    search = "search"
    final = "final"
    sensitivity = "sensitivity"

    @property
    def text(self) -> str:
        """The content of stage.json."""
        return json.dumps({"stage": self.value}) + "\n"


def record_stage(file: Path, stage: BegunStage) -> None:
    write_text(file, stage.text)


def read_stage(file: Path) -> BegunStage | None:
    """Read the stage begun last; None in a directory of a version that did not record it. InputError: damaged."""
    if not file.exists():
        return None
    try:
        return BegunStage(json.loads(read_bytes(file))["stage"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        choices = ", ".join(stage.value for stage in BegunStage)
        raise InputError(
            f'{file} is damaged: {error!r}. Write {{"stage": NAME}} into it, where NAME is one of {choices}; or remove '
            "it, and the stage is told from the other files."
        ) from error
