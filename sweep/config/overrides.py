"""Dotted names, such as `model.scheme`: the one place where they meet the types of a configuration."""

import difflib
from collections.abc import Iterator
from typing import Any

from odenet.training.config import ExperimentConfig, from_plain, to_plain


def override(experiment: ExperimentConfig, params: dict[str, Any]) -> ExperimentConfig:
    """Set dotted names of an experiment, e.g. {"model.scheme": "rk4"}: the one place where names meet types.

    Raises:
        ValueError: an unknown name, a wrong type, or a combination that cannot be.
    """
    plain = to_plain(experiment)
    known = list(leaves(plain))
    for name, value in params.items():
        if name not in known:
            raise ValueError(f"{name} is no key of an experiment{suggestion(name, known)}")
        *parents, last = name.split(".")
        node = plain
        for parent in parents:
            node = node[parent]
        node[last] = value
    return from_plain(ExperimentConfig, plain)


def suggestion(key: str, known: list[str]) -> str:
    """Suggest the keys probably meant, judged by spelling of the whole name or of its last part."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    tail = key.rsplit(".", 1)[-1]
    near += [name for name in known if name.rsplit(".", 1)[-1] == tail and name not in near]
    if near:
        return f"; did you mean {', '.join(near[:3])}?"
    heads = list(dict.fromkeys(name.split(".")[0] for name in known))
    return f"; keys begin with {', '.join(heads)}."


def leaves(plain: dict[str, Any], prefix: str = "", *, inner: bool = False) -> Iterator[str]:
    """Yield the dotted names of all values of a nested dictionary; with `inner`, also those of its dictionaries."""
    for key, value in plain.items():
        if isinstance(value, dict):
            if inner:
                yield prefix + key
            yield from leaves(value, f"{prefix}{key}.", inner=inner)
        else:
            yield prefix + key


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one with dotted keys."""
    entries: dict[str, Any] = {}
    for key, value in nested.items():
        entries |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return entries
