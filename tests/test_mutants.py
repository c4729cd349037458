"""The list of benchmarks/mutants.py follows the code."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_text_that_a_mutant_changes_is_in_its_file_once() -> None:
    names = runpy.run_path(str(ROOT / "benchmarks/mutants.py"))
    texts = {module: (ROOT / file).read_text() for module, file in names["FILES"].items()}
    stale = [mutant.slip for mutant in names["MUTANTS"] if texts[mutant.module].count(mutant.text) != 1]
    assert len(names["MUTANTS"]) >= 40 and stale == []
