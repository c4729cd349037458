"""A network that is defined outside the package: added to the enumeration and the table, and like all others there."""

import copy
import pickle
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from odenet.enums import Network, Scheme
from odenet.networks.model import build_model, manifest
from odenet.networks.model_config import ModelConfig
from odenet.networks.orders import RateOrder
from odenet.networks.refinement import refine
from odenet.networks.table import NETWORKS, add_networks
from odenet.training.config import ExperimentConfig, from_plain, to_plain
from tests.own_names import NETWORK, taken_away

ROW = replace(NETWORKS[Network.continuous], rate=RateOrder(("norm", "conv", "tanh")), scheme=Scheme.heun, source="own")


def test_an_added_network_is_a_member_like_those_there_are() -> None:
    before = list(Network)
    with taken_away():
        add_networks({"own_row": ROW})
        add_networks({"own_row": ROW})  # the same once more
        own = Network["own_row"]
        assert list(Network) == [*before, own]
        assert own is Network("own_row") is pickle.loads(pickle.dumps(own))
        assert (own.name, own.value, repr(own)) == ("own_row", "own_row", "<Network.own_row: 'own_row'>")
        experiment = ExperimentConfig(model=ModelConfig(network=own, width=4))
        assert from_plain(ExperimentConfig, to_plain(experiment)) == experiment
    assert list(Network) == before


def test_a_pickle_of_a_network_imports_the_module_it_is_of(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_rows.py").write_text(NETWORK.format(name="own_row"))
    monkeypatch.syspath_prepend(tmp_path)
    with taken_away():
        add_networks(import_module("own_rows").NETWORKS, "own_rows")
        written = pickle.dumps(Network["own_row"])
        assert pickle.loads(written) is Network["own_row"] is copy.deepcopy(Network["own_row"])
        assert pickle.loads(pickle.dumps(Network.resnet)) is Network.resnet
    with taken_away():
        assert (pickle.loads(written).name, "own_rows" in sys.modules) == ("own_row", True)


def test_a_checkpoint_of_a_network_that_is_not_known_says_how_it_becomes_so() -> None:
    with pytest.raises(ValueError, match=r"network='own_row': must be one of .*once odenet\.add_networks has added it"):
        from_plain(ExperimentConfig, {"model": {"network": "own_row"}})


def test_an_added_network_is_built_refined_and_manifested_from_its_row() -> None:
    with taken_away():
        add_networks({"own_row": ROW})
        model = build_model(ModelConfig(network=Network["own_row"], width=4, nodes=1), channels=1, classes=3)
        images = torch.rand(2, 1, 8, 8)
        before = model.eval()(images)
        assert model.depths()[0].course.scheme is Scheme.heun
        refine(model)
        assert model.depths()[0].nodes == 2
        assert manifest(model, scheme="heun", steps=2)(images).shape == before.shape == (2, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"Own": ROW}, "A network cannot be called 'Own'"),
        ({"own": "row"}, "The network own is no row: a Wiring is needed, not 'row'"),
        ({"resnet": ROW}, "There is a network called resnet already"),
    ],
)
def test_a_row_that_cannot_be_is_refused(rows: dict[str, object], message: str) -> None:
    with taken_away(), pytest.raises(ValueError, match=message):
        add_networks(rows)  # type: ignore[arg-type]


def test_a_layer_that_there_is_not_is_named_with_those_there_are() -> None:
    with taken_away():
        add_networks({"own_row": replace(ROW, rate=RateOrder(("convv",)))})
        with pytest.raises(ValueError, match=r"There is no layer called 'convv'; layers are conv, reduce"):
            build_model(ModelConfig(network=Network["own_row"]), channels=1, classes=3)
