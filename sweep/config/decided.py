"""What a search space, or those of a study's families, decides: a key that it has cannot be set otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from odenet.networks.model_config import ModelConfig
from odenet.pretrained.weight_file import hash_of
from search_spaces import SPACES, Space, shared
from sweep.config.own import Words, whole
from sweep.config.schema import SpaceConfig
from sweep.config.study_config import Dimensions, StudyConfig
from sweep.errors import InputError


def apply_space(composed: DictConfig, words: Words) -> None:
    """Set what the space fixes, so that other keys are judged with it. InputError for a key that the space decides."""
    chosen = OmegaConf.to_object(composed.space)
    assert isinstance(chosen, SpaceConfig)
    composed.space = whole(chosen)
    space = chosen.build()
    if key := _decided(words, {chosen.name: space}):
        how = f"fixes it: {space.fixed[key]}" if key in space.fixed else "searches it"
        raise InputError(
            f"{words.settings[key]} would have no effect, space={chosen.name} {how}. A searched key takes one value by "
            f"space.fix.{key}=VALUE; space=NAME chooses another family."
        )
    for key, value in space.fixed.items():
        if key not in space.conditions:
            OmegaConf.update(composed, key, value)


def check_spaces(composed: DictConfig, words: Words) -> None:
    """Raise InputError for a key that the spaces of all families of a study decide. ValueError: there is no such
    family."""
    study = OmegaConf.to_object(composed.study)
    assert isinstance(study, StudyConfig)
    spaces = {name: SPACES[name] for name in study.families}
    if Dimensions.full not in study.spaces:
        spaces = {name: shared(space) for name, space in spaces.items()}
    if key := _decided(words, spaces):
        raise InputError(
            f"{words.settings[key]} would have no effect, the spaces of {', '.join(spaces)} search or fix it. A "
            f"searched key takes one value by space.fix.{key}=VALUE."
        )


def _decided(words: Words, spaces: Mapping[str, Space]) -> str:
    """Return the first key that was set although all these spaces have it; "" for none."""
    return next((key for key in words.settings if all(key in space.entries for space in spaces.values())), "")


def with_hash(model: ModelConfig) -> ModelConfig:
    """Return the network with the place and the hash of the weights that it begins with. ValueError: they cannot be
    read."""
    if model.initial is None:
        return model
    path = Path(model.initial).absolute()
    return replace(model, initial=str(path), initial_sha256=model.initial_sha256 or hash_of(path))
