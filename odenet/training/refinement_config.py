"""When a network is refined, in epochs."""

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class RefinementConfig:
    """The times of refinement: `count`, the first after the fraction `first` of the epochs, then every `interval`.

    Or at the start of the epochs `at`, counted from 0. After the fraction `coarsen` its cells are merged pairwise.
    """

    count: int = 0  # how often the network is refined
    first: float = 0.3  # of the epochs, until the first refinement
    interval: float = 0.2  # of the epochs, from one to the next
    coarsen: float | None = None  # of the epochs, until half of the nodes are left; null: never
    at: list[int] | None = None  # instead of count, first and interval

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 10:
            raise ValueError(f"refinement.count={self.count}: must be from 0 to 10.")
        if self.at is not None:
            self._check_at(self.at)
        for name in ("first", "interval"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"refinement.{name}={getattr(self, name)}: a fraction of the epochs, between 0 and 1.")
        if self.coarsen is not None and not 0 < self.coarsen < 1:
            raise ValueError(f"refinement.coarsen={self.coarsen}: a fraction of the epochs, between 0 and 1, or null.")

    def _check_at(self, at: list[int]) -> None:
        if self.count:
            raise ValueError(f"refinement.count={self.count} with refinement.at={at}: either says when; use one.")
        if not 1 <= len(at) <= 10 or at != sorted(set(at)) or at[0] < 1:
            raise ValueError(f"refinement.at={at}: 1 to 10 epochs (counted from 0), above 0 and rising, or null.")

    @property
    def times(self) -> int:
        """Return how many refinements there are."""
        return self.count if self.at is None else len(self.at)

    @property
    def asked(self) -> str:
        """Return the key that tells how many, with its value."""
        return f"count={self.count}" if self.at is None else f"at={self.at}"

    def due(self, epochs: int) -> list[int]:
        """Return the epochs, counted from 0, at whose start the network is refined.

        Raises:
            ValueError: they do not fit before the last epoch, each after the one before.
        """
        if self.at is not None:
            if self.at[-1] >= epochs:
                raise ValueError(f"refinement.at={self.at}: training has {epochs} epochs, 0 to {epochs - 1}.")
            return list(self.at)
        first, interval = max(1, round(self.first * epochs)), max(1, round(self.interval * epochs))
        due = [first + index * interval for index in range(self.count)]
        if due and due[-1] >= epochs:
            raise ValueError(
                f"refinement.count={self.count} with first={self.first} and interval={self.interval} falls on the "
                f"epochs {due} (from 0), but training has {epochs}: refine less often, earlier, or train longer."
            )
        return due

    def coarsens(self, epochs: int) -> int | None:
        """Return the epoch, counted from 0, at whose start cells are merged; None: never.

        Raises:
            ValueError: it is not after the last refinement and before the end.
        """
        if self.coarsen is None:
            return None
        epoch, due = max(1, round(self.coarsen * epochs)), self.due(epochs)
        if epoch >= epochs or (due and epoch <= due[-1]):
            raise ValueError(
                f"refinement.coarsen={self.coarsen} falls on epoch {epoch} (from 0) of {epochs}: it must come after "
                f"the last refinement {due[-1:]} and before the last epoch ends."
            )
        return epoch
