"""SECURITY.md names tests that there are, and nothing that is shipped listens on all interfaces."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`((?:tests|deploy|docs)/[\w/.-]+|cluster\.yaml)`", (ROOT / "SECURITY.md").read_text())))


@pytest.mark.parametrize("path", NAMED)
def test_what_the_document_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_nothing_that_is_shipped_listens_on_all_interfaces() -> None:
    shipped = [
        path for folder in ("odenet", "sweep", "deploy") for path in (ROOT / folder).rglob("*") if path.is_file()
    ]
    texts = {
        path: path.read_text(encoding="utf-8") for path in [*shipped, ROOT / "cluster.yaml"] if path.suffix != ".pyc"
    }
    assert [path for path, text in texts.items() if "0.0.0.0" in text or "--dashboard-host=::" in text] == []
    assert len(texts) > 200
