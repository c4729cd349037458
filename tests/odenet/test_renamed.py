"""Networks that were pickled before modules moved are found by the former names."""

import importlib
import pickle

import pytest

import odenet.networks
from odenet import Scheme
from odenet.networks.model import DepthNet
from odenet.networks.table import Pool
from odenet.renamed import FORMER


@pytest.mark.parametrize("former", FORMER)
def test_a_former_module_holds_what_its_successors_define(former: str) -> None:
    module = importlib.import_module(former)
    for name in FORMER[former]:
        defined = [
            value for value in vars(importlib.import_module(name)).values() if getattr(value, "__module__", "") == name
        ]
        assert defined
        assert all(getattr(module, value.__name__) is value for value in defined if isinstance(value, type))


def test_a_pickle_finds_its_classes_under_their_former_names() -> None:
    assert pickle.loads(b"codenet.models\nDepthNet\n.") is DepthNet
    assert pickle.loads(b"codenet.terms\nScheme\n(Vheun\ntR.") is Scheme.heun
    assert pickle.loads(b"codenet.networks\nPool\n.") is Pool


def test_no_other_name_is_made_up() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("odenet.term")
    with pytest.raises(AttributeError, match="has no attribute 'Puddle'"):
        odenet.networks.Puddle  # noqa: B018
