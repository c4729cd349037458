"""The checkpoint files of a trial, by epoch."""

from pathlib import Path

KEPT = 2  # checkpoints of a trial: the newest, and the one before in case that is damaged


def checkpoint_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:06d}.ckpt"


def checkpoint_files(folder: Path) -> list[Path]:
    """List a trial's checkpoints, the newest first."""
    return sorted(folder.glob("epoch-*.ckpt"), reverse=True)


def inherited_file(folder: Path, epoch: int) -> Path:
    """Name the file in which a trial keeps the weights that it took over from another trial at this epoch."""
    return folder / f"inherited-{epoch:06d}.ckpt"
