"""Which images are learned from: the choices, and what is checked before a file is opened."""

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from pathlib import Path


class DataSet(Enum):
    """The published sets. `digits` comes with scikit-learn; the others are read from files. `folder`: images of your
    own."""

    digits = "digits"
    cifar10 = "cifar10"
    cifar100 = "cifar100"
    stl10 = "stl10"
    mnist = "mnist"
    fashion_mnist = "fashion_mnist"
    folder = "folder"


class Augment(Enum):
    """`standard`: a random crop after zero padding and, where the set allows it, a horizontal flip (see SETS)."""

    none = "none"
    standard = "standard"


class Order(Enum):
    """The order in which a draw picks images within a class.

    shuffled: by a permutation seeded by (set, class, draw); small draws are nested in large ones.
    file: draw d takes images d*n ... (d+1)*n of each class in file order, train first and validation last. At 50 per
        class and val_fraction 0.4 these are the splits of DEIC and GEM (Brigato et al. 2021, arXiv 2108.13122).
    """

    shuffled = "shuffled"
    file = "file"


class Portion(Enum):
    """The images to train on: `train` keeps the validation images apart, `trainval` (final training) has both."""

    train = "train"
    trainval = "trainval"


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """A low-data draw of a published set. It never says anything about the test set, which is one and whole.

    Raises:
        ValueError: a value out of range, or a draw that would leave no validation image.
    """

    dataset: DataSet = DataSet.digits
    per_class: int | None = 20  # images per class, train and validation together; None = all there are
    val_fraction: float = 0.4  # of them for validation, exact to a thousandth: 20 at 0.4 are 12 and 8
    draw: int = 0  # draws 0-4, 5-9, ... share no image while per_class * 5 <= the class size
    order: Order = Order.shuffled  # how a draw takes images of a class; file: in turn, as DEIC and GEM do
    augment: Augment = Augment.standard  # crops, and mirror images where they mean the same
    portion: Portion = Portion.train  # what is trained on; trainval leaves nothing to validate
    path: str | None = field(default=None, compare=False)  # of the images, for data.dataset=folder; where, not what

    def __post_init__(self) -> None:
        self._check_path()
        if self.per_class is not None and self.per_class < 1:
            raise ValueError(f"data.per_class={self.per_class} is no number of images; use 1 or more, or null for all.")
        if not 0.001 <= self.val_fraction <= 0.999:
            raise ValueError(
                f"data.val_fraction={self.val_fraction} is not in [0.001, 0.999]; "
                "to train without validation use data.portion=trainval."
            )
        if self.draw < 0:
            raise ValueError(f"data.draw={self.draw} is negative; draws are counted from 0.")
        if self.order is Order.file and self.per_class is None and self.draw > 0:
            raise ValueError(
                f"data.draw={self.draw}: with data.order=file and data.per_class=null draw 0 holds every image; "
                "use data.draw=0, a data.per_class, or data.order=shuffled."
            )
        if self.per_class is not None:
            self.check_validation(self.per_class)

    def _check_path(self) -> None:
        if (self.dataset is DataSet.folder) == bool(self.path):
            return
        if self.path is None:
            raise ValueError(
                "data.dataset=folder needs data.path=DIR, which holds a folder for each class with its images, or "
                "train/ and test/ with such folders."
            )
        raise ValueError(
            f"data.path={self.path!r} is for images of your own in class folders, data=folder; "
            f"{self.dataset.value} is read from runtime.data_dir."
            if self.dataset is not DataSet.folder
            else "data.path is empty: name the directory with the class folders."
        )

    @property
    def name(self) -> str:
        """Return what the set is called in tables: folder:NAME for images of the user's own."""
        own = f":{Path(self.path).absolute().name}" if self.path else ""
        return f"{self.dataset.value}{own}"

    @property
    def fraction(self) -> Fraction:
        """Return `val_fraction` as the rational number that was meant: 0.4 is 2/5."""
        return Fraction(self.val_fraction).limit_denominator(1000)

    def check_validation(self, n: int) -> None:
        """Raise ValueError if validation is asked for, but its share of `n` images per class is less than one image."""
        if self.portion is Portion.train and n * self.fraction < 1:
            raise ValueError(
                f"data.val_fraction={self.val_fraction} of {n} images per class leaves none for validation; use "
                f"at least {-(-1 // self.fraction)} per class, a larger fraction, or data.portion=trainval."
            )
