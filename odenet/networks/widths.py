"""Numbers of channels: of rates, and from one stage to the next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of a rate: of its state, inside a bottleneck, and the groups its middle convolution has."""

    outer: int
    inner: int
    groups: int = 1

    def halved(self) -> "Widths":
        """Of each half of a partitioned rate; ValueError where there is none."""
        if self.outer % 2:
            raise ValueError(f"a partitioned rate halves its channels: {self.outer} is odd.")
        return replace(self, outer=self.outer // 2, inner=self.inner // 2)

    def along(self, names: Sequence[str]) -> list["Widths"]:
        """The same at each layer of an order: between `reduce` and `expand` the state is the inner one."""
        inside, found = False, []
        for name in names:
            inside = inside and name != "expand"
            found.append(replace(self, outer=self.inner) if inside and name not in ("reduce", "expand") else self)
            inside = inside or name == "reduce"
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """From the state of one stage to that of the next."""

    inputs: int
    widths: Widths
    stride: int

    @property
    def outputs(self) -> int:
        return self.widths.outer

    @property
    def changes(self) -> bool:
        """Whether the shape does."""
        return self.stride > 1 or self.inputs != self.outputs


def zero_channels(change: Change, halves: int) -> int:
    """Return the zero channels that a `PoolPad` adds on each side of each half.

    Raises:
        ValueError: they cannot be even.
    """
    added = change.outputs - change.inputs
    if added < 0 or added % (2 * halves):
        raise ValueError(
            f"from {change.inputs} to {change.outputs} channels: zero channels are added on both sides of "
            f"{'each half' if halves == 2 else 'the state'}, so there must be {2 * halves} times 0, 1, 2, ... more."
        )
    return added // (2 * halves)
