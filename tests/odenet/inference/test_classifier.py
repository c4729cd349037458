"""A trained network with its normalisation inside: right on images in any range that can be known, or a refusal."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from odenet import (
    Classifier,
    DataConfig,
    DataSet,
    Device,
    ExperimentConfig,
    ImageFormat,
    ModelConfig,
    RuntimeConfig,
    Scheme,
    Training,
    TrainingConfig,
    evaluate,
    load_checkpoint,
    load_test,
    manifest,
)
from odenet.data.batches import Batches
from odenet.data.sets import SETS, class_names

EXPERIMENT = ExperimentConfig(model=ModelConfig(width=2), training=TrainingConfig(epochs=2))
TEST = load_test(EXPERIMENT.data)
COLOURED = ImageFormat(
    dataset="cifar10", channels=3, height=8, width=8, highest=255, labels=["a", "b"], mean=3 * [0.5], std=3 * [0.25]
)


@pytest.fixture(scope="module")
def training() -> Training:
    training = Training(EXPERIMENT, RuntimeConfig(device=Device.cpu))
    list(training)
    return training


@pytest.fixture
def classifier(training: Training) -> Classifier:
    return training.checkpoint().classifier()


@pytest.fixture(scope="module")
def expected(training: Training) -> np.ndarray:
    """The classes of the test images as the network in training sees them: normalised by its own batches."""
    model = copy.deepcopy(training.model).eval()
    batches = Batches(TEST, statistics=statistics(training))
    with torch.no_grad():
        return torch.cat([model(x_BCHW).argmax(1) for x_BCHW, _ in batches.ordered(512)]).numpy()


def statistics(training: Training):
    from odenet.data.batches import Statistics
    from odenet.data.subsets import load_data

    return Statistics.of(load_data(training.config.data).train)


@pytest.fixture(scope="module")
def raw() -> np.ndarray:
    """The test images as scikit-learn has them: floats (B, H, W), whole numbers from 0 to 16."""
    from sklearn.datasets import load_digits

    return load_digits().images[TEST.indices_B]


# --- what is right ----------------------------------------------------------------------------------------------------

RIGHT: dict[str, Callable[[np.ndarray], object]] = {
    "0..16": lambda raw: raw,
    "0..16, float32": lambda raw: raw.astype("float32"),
    "0..16, whole": lambda raw: raw.astype("int64"),
    "0..16, big-endian": lambda raw: raw.astype(">i2"),
    "uint8": lambda _: TEST.pixels_BCHW,
    "uint8 tensor": lambda _: torch.from_numpy(TEST.pixels_BCHW),
    "0..1": lambda _: TEST.pixels_BCHW / 255,
    "0..16 by 16": lambda raw: raw / 16,
    "0..1 tensor": lambda _: torch.from_numpy(TEST.pixels_BCHW).float() / 255,
    "(B, C, H, W)": lambda raw: raw[:, None],
    "(B, H, W, C)": lambda raw: raw[..., None],
    "a list": lambda raw: raw.tolist(),
    "a list of tensors that learn": lambda raw: [torch.from_numpy(image).requires_grad_() for image in raw],
    "turned twice": lambda raw: np.ascontiguousarray(raw[:, ::-1])[:, ::-1],
    "long floats": lambda raw: raw.astype("longdouble"),
    "sparse": lambda raw: torch.from_numpy(raw).to_sparse(),
}


@pytest.mark.parametrize("given", RIGHT)
def test_raw_images_get_the_classes_that_the_network_in_training_gives(classifier, expected, raw, given) -> None:
    images = RIGHT[given](raw)
    found = classifier.predict(images)
    assert isinstance(found, Tensor) is isinstance(images, Tensor)
    assert np.array_equal(np.asarray(found), expected)
    assert len(set(expected)) > 1


def test_one_image_is_a_batch_of_one(classifier, expected, raw) -> None:
    for image in (raw[3], raw[3:4], raw[3][..., None], raw[3:4, None], TEST.pixels_BCHW[3]):
        assert classifier.predict(image).tolist() == [expected[3]]


def test_the_score_of_images_in_unit_range_is_that_of_normalised_ones(training, classifier) -> None:
    from odenet.data.batches import Statistics

    bare = evaluate(training.model, Batches(TEST, statistics=statistics(training)))
    unit = evaluate(classifier, Batches(TEST, statistics=Statistics.identity(1)))
    assert (unit.accuracy, unit.n) == (bare.accuracy, bare.n)
    assert unit.loss == pytest.approx(bare.loss, rel=1e-5)


def test_coloured_images_are_taken_in_both_layouts() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    for images in (pixels, pixels.transpose(0, 2, 3, 1), pixels.astype("int32"), pixels.astype(float), pixels / 255):
        torch.testing.assert_close(COLOURED.convert(images), torch.from_numpy(pixels).float() / 255)
    assert COLOURED.convert(pixels[0].transpose(1, 2, 0)).shape == (1, 3, 8, 8)


def test_a_range_that_is_said_is_taken(classifier, expected, raw) -> None:
    dim = raw.astype("uint8")
    assert np.array_equal(classifier.predict(dim, value_range=(0, 16)), expected)
    assert np.array_equal(classifier.predict(raw - 16, value_range=(-16, 0)), expected)


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[np.ndarray], object], str]] = {
    "uint8 in 0..16": (
        lambda raw: raw.astype("uint8"),
        r"uint8 with values from 0 to 16: they can be of 0..16 or 0..255",
    ),
    "black and white": (lambda raw: (raw > 8).astype(float), r"can be of 0..1 or 0..16; say which by value_range="),
    "0..255 as floats": (lambda _: TEST.pixels_BCHW.astype(float), r"0 to 255: it cannot be known .* value_range="),
    "normalised": (
        lambda raw: (raw - 5) / 6,
        r"it cannot be known .* digits are whole numbers in 0..16, .* not normal",
    ),
    "blurred": (lambda raw: raw * 0.9, r"from 0 to 14.4: it cannot be known"),
    "not a number": (lambda raw: raw * np.nan, "every pixel must be a finite number"),
    "booleans": (lambda raw: raw > 8, "of type bool are no real numbers"),
    "boolean tensor": (lambda raw: torch.from_numpy(raw > 8), "of type torch.bool are no real numbers"),
    "text": (lambda _: [["a"]], "are no real numbers"),
    "two sizes": (lambda raw: [raw[0], raw[1, :4]], "Images of type list are no array of images of one size"),
    "tensors of two sizes": (lambda raw: [torch.zeros(8, 8), torch.zeros(4, 8)], "no array of images of one size"),
    "nothing": (lambda raw: raw[:0], r"shape \(0, 8, 8\) have no pixel"),
    "flat": (lambda raw: raw.reshape(-1, 64), r"\(596, 64\): that is not possible. Possible are \(B, C, H, W\), .*H=8"),
    "another size": (lambda raw: raw[:, :7], r"\(596, 7, 8\): that is not possible"),
    "three channels": (lambda raw: np.stack(3 * [raw], 1), r"\(596, 3, 8, 8\): that is not possible"),
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_known_is_refused_with_what_is_possible(classifier, raw, given) -> None:
    images, message = REFUSED[given]
    with pytest.raises(ValueError, match=message):
        classifier.predict(images(raw))


def test_a_layout_that_may_be_two_is_refused() -> None:
    square = replace(COLOURED, height=3, width=3)
    with pytest.raises(ValueError, match=r"can be \(B, C, H, W\) and \(B, H, W, C\)"):
        square.convert(np.zeros((5, 3, 3, 3), dtype=np.uint8))


def test_values_outside_the_range_that_is_said_are_refused(classifier, raw) -> None:
    for values in ((0, 8), (16, 0), (4, 16)):
        with pytest.raises(ValueError, match=r"0 to 16 with value_range=\(\d+, \d+\): they must lie in it"):
            classifier.predict(raw, value_range=values)
    for values in (16, (0, 8, 16), "ab", (0, float("inf")), (float("nan"), 16)):
        with pytest.raises(ValueError, match=r"^value_range=.*: write the two values of black and white"):
            classifier.predict(raw, value_range=values)
    with pytest.raises(ValueError, match="batch_size=0: it must be at least 1"):
        classifier.predict(raw, batch_size=0)


def test_the_graph_itself_refuses_images_that_are_not_in_unit_range(classifier, raw) -> None:
    digits = torch.from_numpy(raw[:, None]).float()
    with pytest.raises(ValueError, match=r"from 0 to 16: the network takes floats in \[0, 1\]; predict\(\) takes raw"):
        classifier(digits)
    with pytest.raises(ValueError, match=r"torch.uint8: the network takes floats in \[0, 1\]; predict\(\)"):
        classifier(torch.from_numpy(TEST.pixels_BCHW))
    with pytest.raises(ValueError, match=r"shape \(596, 8, 8\): the network takes \(B, 1, 8, 8\)"):
        classifier(digits[:, 0] / 16)
    with pytest.raises(ValueError, match=r"type ndarray: the network takes a tensor; predict\(\) also takes arrays"):
        classifier(raw[:, None])
    with pytest.raises(ValueError, match="every pixel must be a finite number"):
        classifier(digits / 0)
    mean, std = classifier.images.mean[0], classifier.images.std[0]
    for normalised in (
        digits / 8 - 1,
        (digits / 16 - mean) / std,
        (torch.from_numpy(TEST.pixels_BCHW) / 255 - mean) / std,
    ):
        for images in (normalised, normalised[:1].double()):
            with pytest.raises(ValueError, match="are normalised already: the network does that itself"):
                classifier(images)
    for noise in (0.5 * torch.randn_like(digits), 0.1 * torch.sign(torch.randn_like(digits))):
        assert classifier(digits / 16 + noise).shape == (596, 10)  # perturbed ones are neither raw nor normalised


# --- what a module must be able to do ---------------------------------------------------------------------------------


def test_it_is_differentiable_under_autograd_and_functional_transforms(classifier) -> None:
    x_BCHW = torch.rand(3, 1, 8, 8, requires_grad=True)
    (slope_BCHW,) = torch.autograd.grad(classifier(x_BCHW).square().sum(), x_BCHW)
    assert bool((slope_BCHW != 0).any())

    def squared(x_CHW: Tensor) -> Tensor:
        return classifier(x_CHW[None]).square().sum()

    torch.testing.assert_close(torch.vmap(torch.func.grad(squared))(x_BCHW.detach()), slope_BCHW, rtol=1e-3, atol=1e-4)


def test_it_comes_in_evaluation_mode_and_predicts_alike_in_any(classifier, expected, raw) -> None:
    assert not any(module.training for module in classifier.modules())
    classifier.train()
    before = {name: buffer.clone() for name, buffer in classifier.named_buffers()}
    assert np.array_equal(classifier.predict(raw), expected)
    assert all(module.training for module in classifier.modules())
    assert all(torch.equal(buffer, before[name]) for name, buffer in classifier.named_buffers())


def test_copies_and_pickles_are_the_same_classifier(classifier, expected, raw) -> None:
    for other in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert np.array_equal(other.predict(raw), expected)
        assert (other.labels, other.about) == (classifier.labels, classifier.about)
    assert classifier.double()(torch.rand(2, 1, 8, 8)).dtype is torch.float64


def test_another_manifestation_shares_weights_and_normalisation(classifier) -> None:
    other, x_BCHW = classifier.manifest(scheme="rk4", steps=4), torch.rand(3, 1, 8, 8)
    plain = manifest(classifier.network, scheme=Scheme.rk4, steps=4)
    unit = x_BCHW * classifier.scale_C11 + classifier.shift_C11
    with torch.no_grad():
        assert torch.equal(other(x_BCHW), plain.eval()(unit))
    assert other.network.head.linear.weight is classifier.network.head.linear.weight


# --- what it says of itself, and where it comes from ------------------------------------------------------------------


def test_it_says_what_it_is(classifier) -> None:
    assert (classifier.dataset, classifier.classes, classifier.input_size) == ("digits", 10, (1, 8, 8))
    assert (classifier.raw_range, classifier.labels) == ((0, 16), [str(number) for number in range(10)])
    assert classifier.experiment["model"]["width"] == 2
    assert {"python", "torch", "numpy"} <= classifier.versions.keys()
    assert classifier.about["epoch"] == 2


def test_a_checkpoint_of_before_gets_its_normalisation_from_the_data(training, expected, raw, tmp_path: Path) -> None:
    training.save(tmp_path / "now")
    now = load_checkpoint(str(tmp_path / "now"))
    assert now.images is not None and now.versions
    before = replace(now, images=None, versions={})
    for one in (now, before):
        found = one.classifier(device="cpu")
        assert found.images == now.images
        assert np.array_equal(found.predict(raw), expected)


def test_every_class_of_every_data_set_has_a_name_of_its_own() -> None:
    for dataset in DataSet:
        if classes := SETS[dataset].classes:
            assert len(set(class_names(DataConfig(dataset=dataset), classes))) == classes, dataset
    names = class_names(DataConfig(dataset=DataSet.cifar100), 100)
    assert list(names) == sorted(names)
    assert DataConfig().dataset is DataSet.digits and SETS[DataSet.digits].highest == 16
