"""Examples in docstrings run and show what they are said to show; docstrings begin as they should."""

import ast
import doctest
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import odenet
from search_spaces import Space

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("odenet", "search_spaces")
    for path in sorted((ROOT / package).rglob("*.py"))
]
WITH_EXAMPLES = [
    *(odenet.integrate, odenet.build_model, odenet.manifest, odenet.refine, odenet.project, odenet.load_data),
    *(odenet.Training, odenet.evaluate, odenet.save_checkpoint, odenet.load_checkpoint, Space),
]


@pytest.mark.parametrize("name", [name for name in MODULES if ">>>" in (inspect.getsource(import_module(name)))])
def test_the_examples_of_a_module_show_what_they_are_said_to_show(name: str) -> None:
    module = import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    assert found
    for test in found:
        report: list[str] = []
        assert runner.run(test, out=report.append).failed == 0, "".join(report)


@pytest.mark.parametrize("thing", WITH_EXAMPLES, ids=lambda thing: thing.__name__)
def test_where_a_user_starts_there_is_an_example(thing: type) -> None:
    assert len(doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")) >= 2 - (thing is odenet.integrate)


def functions() -> Iterator[tuple[str, str]]:
    """Yield the place and the docstring of every function of the packages; a property may be said by a noun."""
    for path in (path for package in ("odenet", "search_spaces", "sweep") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and "property" not in map(ast.unparse, node.decorator_list):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", ast.get_docstring(node) or ""


def test_a_function_says_in_the_imperative_what_it_does() -> None:
    """Not "Of ...", "What ...", "As ..."; and "Return" or "Raise", not "Returns" or "Raises"."""
    wrong = r"(What|How|Who|Of|As|Where|Whether|A|An|The|These|Args:|[A-Z][a-z]+[^s]s) ?\b"
    assert [(place, text.split("\n")[0]) for place, text in functions() if re.match(wrong, text)] == []
