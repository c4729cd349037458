"""The checkpoint files of a trial, by epoch."""

from dataclasses import dataclass
from pathlib import Path

KEPT = 2  # checkpoints of a trial: the newest, and the one before in case that is damaged


def checkpoint_name(epoch: int) -> str:
    return f"epoch-{epoch:06d}.ckpt"


def checkpoint_file(folder: Path, epoch: int) -> Path:
    return folder / checkpoint_name(epoch)


def checkpoint_files(folder: Path) -> list[Path]:
    """List a trial's checkpoints, the newest first."""
    return sorted(folder.glob("epoch-*.ckpt"), reverse=True)


def inherited_name(epoch: int) -> str:
    """Name the file in which a trial keeps the weights that it took over from another trial at this epoch."""
    return f"inherited-{epoch:06d}.ckpt"


def inherited_file(folder: Path, epoch: int) -> Path:
    return folder / inherited_name(epoch)


@dataclass(frozen=True, slots=True)
class TrialFolders:
    """The place of the folders with the checkpoints of all trials of a search, or of its final phases.

    In storage a folder has the trial's id in its name: what a lost driver had begun after its last manifest is not on
    record, and its number is given to another trial.
    """

    place: str  # a path, or an address in a bucket
    by_id: bool = False

    def of(self, number: int, trial_id: str) -> str:
        return f"{self.place}/{number:06d}{f'-{trial_id}' if self.by_id else ''}"
