"""The site of the documentation builds offline without a warning, and what its how-to pages say to write works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'```\w+ title="([^"]+)"\n(.*?)```', re.DOTALL)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    pages = {str(page.relative_to(tmp_path)): page.read_text() for page in tmp_path.rglob("*.html")}
    assert {"index.html", "tutorial.html", "networks.html", "reference/odenet.html"} <= pages.keys()
    for name, text in pages.items():
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="((?:https?:)?//[^"]*)"', text)
        assert loaded == [], f"{name} loads {loaded}"
        assert "--8" not in text, f"{name} shows the name of a file in its place"
    assert 'id="odenet.integrate"' in pages["reference/odenet.html"]


def test_every_file_that_a_page_includes_is_included() -> None:
    """ruff formats Python in pages, and `--8<-- "FILE"` is Python: it would become a comparison, which shows itself."""
    for page in (ROOT / "docs").rglob("*.md"):
        for line in page.read_text().splitlines():
            if line.startswith("--8"):
                named = re.fullmatch(r'--8<-- "([\w./]+)(:\w+)?"', line)
                assert named and (ROOT / named[1]).is_file(), f"{page}: {line}"


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


# Where a block of a how-to page goes: the line that it follows, or the one that it precedes.
PLACES = {
    "in class DataSet": r'    digits = "digits"\n',
    "before SETS": r"(?=SETS: dict)",
    "in SETS": r"SETS: dict\[.*\n",
    "with the other imports": r"(?=from search_spaces\.smoke)",
    "after SPACES": r"(?=__all__)",
    "in class Network": r'    continuous = "continuous"\n',
    "in NETWORKS": r"NETWORKS: dict\[.*\n",
}
TRIED = {
    "data_set": """
import numpy as np
from pathlib import Path
from odenet import DataConfig, DataSet, load_data, load_test
from sweep.config.compose import load
Path("data/mine").mkdir(parents=True)
draws = np.random.default_rng(0)
for name in ("train", "test"):
    pixels, labels = draws.integers(0, 256, (90, 1, 12, 12), dtype=np.uint8), np.arange(90) % 3
    np.savez(f"data/mine/{name}.npz", pixels=pixels, labels=labels)
assert load("data=mine".split()).data == DataConfig(dataset=DataSet.mine)
splits = load_data(DataConfig(dataset=DataSet.mine), "data")
assert (len(splits.train), len(splits.val), len(load_test(DataConfig(dataset=DataSet.mine), "data"))) == (36, 24, 90)
""",
    "space": """
from sweep.config.compose import load
space = load(["space=mine"]).space.build()
assert "refinement.first" in space.conditional and "model.scheme" in space.categorical
""",
    "network": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("page", TRIED)
def test_what_a_how_to_page_says_to_write_works(tmp_path: Path, page: str) -> None:
    text = (ROOT / f"docs/how_to/{page}.md").read_text()
    for package in ("odenet", "search_spaces", "sweep"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = BLOCK.findall(text)
    assert blocks
    for title, code in blocks:
        name, _, place = title.partition(", ")
        file = tmp_path / name
        if place:
            before = file.read_text()
            after = re.sub(PLACES[place], lambda found, code=code: found[0] + code, before, count=1)
            assert after != before, f"{name} has no place {place}"
            file.write_text(after)
        else:
            file.write_text(code)
    tried = TRIED[page] or re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-c", tried], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_five_ideas_run() -> None:
    import doctest

    failed, tried = doctest.testfile(str(ROOT / "docs/ideas.md"), module_relative=False)
    assert failed == 0 < tried
