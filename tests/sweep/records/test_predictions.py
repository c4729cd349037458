"""What networks say of test images, written and read."""

import numpy as np
import pytest

from sweep.errors import InputError
from sweep.records.predictions import Predictions, read_predictions, write_predictions


def predictions(**changes):
    arrays = {
        "labels_N": np.array([0, 1, 2]),
        "indices_N": np.array([5, 7, 9]),
        "classes_RN": np.array([[0, 1, 1], [0, 0, 2]]),
        "seeds_R": np.array([11, 12]),
    }
    return Predictions(**{**arrays, **changes})


def test_they_come_back_as_they_were_written(tmp_path):
    written = predictions()
    write_predictions(tmp_path / "predictions.npz", written)
    read = read_predictions(tmp_path / "predictions.npz")
    assert read.classes_RN.tolist() == written.classes_RN.tolist() and read.seeds_R.tolist() == [11, 12]
    assert read.hits_RN.tolist() == [[True, True, False], [True, False, True]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels_N": np.array([0, 1])},
        {"seeds_R": np.array([1, 1])},
        {"classes_RN": np.zeros((2, 3))},
        {"indices_N": np.array([5, 5, 9])},
        {name: np.zeros(shape, int) for name, shape in (("labels_N", 0), ("indices_N", 0), ("classes_RN", (2, 0)))},
    ],
    ids=["lengths", "a seed twice", "fractions", "an image twice", "no image"],
)
def test_arrays_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must|twice"):
        predictions(**wrong)


def test_a_damaged_file_is_refused_by_its_name(tmp_path):
    path = tmp_path / "predictions.npz"
    write_predictions(path, predictions())
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-30], whole[:200] + b"\xff\xff" + whole[202:], b"text"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"predictions\.npz cannot be read"):
            read_predictions(path)
