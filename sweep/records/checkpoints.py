"""The checkpoint files of a trial, by epoch."""

from pathlib import Path

KEPT = 2  # checkpoints of a trial: the newest, and the one before in case that is damaged


def checkpoint_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:06d}.ckpt"


def checkpoint_files(folder: Path) -> list[Path]:
    """A trial's checkpoints, newest first."""
    return sorted(folder.glob("epoch-*.ckpt"), reverse=True)


def inherited_file(folder: Path, epoch: int) -> Path:
    """Where a trial keeps the weights that it took over from another one after so many epochs."""
    return folder / f"inherited-{epoch:06d}.ckpt"
