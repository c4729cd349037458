"""docs/columns.md is what sweep.records.rows says of each column: `python -m tests.test_columns` writes its tables."""

import ast
import inspect
import re
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from sweep.records import rows
from sweep.records.rows import AnyRow, CurveRow, EvaluationRow, ManifestationRow, TrialRow
from sweep.records.tables import read_rows, write_rows
from tests.sweep.sweep_files import trial

PAGE = Path(__file__).parents[1] / "docs/columns.md"
TABLES: dict[str, type[AnyRow]] = {
    "trials.csv": TrialRow, "curves.csv": CurveRow, "manifestations.csv": ManifestationRow, "rows.csv": EvaluationRow,
}  # fmt: skip
KINDS = {"str": "text", "int": "integer", "float": "number", "bool": "True or False", "dict": "JSON object"} | {
    "list": "JSON list"
}


def texts(row_type: type[AnyRow]) -> dict[str, str]:
    """Read the text that follows each field of the dataclass in its source."""
    (node,) = (one for one in ast.parse(inspect.getsource(rows)).body if getattr(one, "name", "") == row_type.__name__)
    assert isinstance(node, ast.ClassDef)
    found = {}
    for one, following in zip(node.body, node.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(one.target, ast.Name) and isinstance(following.value, ast.Constant)
            found[one.target.id] = " ".join(str(following.value.value).split())
    return found


def kind(hint: Any) -> str:
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return ", ".join(f"`{member.value}`" for member in hint)
    (first, *_) = get_args(hint) if type(None) in get_args(hint) else (hint,)
    return KINDS[getattr(first, "__origin__", first).__name__] + (" or empty" if first is not hint else "")


def table(row_type: type[AnyRow]) -> str:
    said, hints = texts(row_type), get_type_hints(row_type)
    lines = ["| column | holds | |", "|---|---|---|", "| `schema` | integer | The version of the table. |"]
    lines += [f"| `{name}` | {kind(hints[name])} | {text} |" for name, text in said.items()]
    return "\n".join(["", *lines, "", ""])  # a table is a paragraph of its own


def written(text: str) -> str:
    """Return the page with its tables as the code has them."""
    for name, row_type in TABLES.items():
        block = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert block.search(text), name
        text = block.sub(lambda found, rows=row_type: found[1] + table(rows) + found[2], text)
    return text


@pytest.mark.parametrize("name", TABLES)
def test_every_column_has_a_sentence(name: str) -> None:
    said = texts(TABLES[name])
    assert list(said) == [one.name for one in fields(TABLES[name])]
    assert [text for text in said.values() if not re.fullmatch(r"[A-Z`].*\.", text) or "|" in text] == []


def test_the_page_says_of_every_column_what_the_code_does() -> None:
    assert PAGE.read_text() == written(PAGE.read_text()), "python -m tests.test_columns writes it anew"


def test_the_example_of_the_page_reads_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with pandas alone, as the page shows it."""
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "runs/first/trials.csv", TrialRow, [trial(0), trial(1, objective=0.75)])
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    ours = read_rows(tmp_path / "runs/first/trials.csv", TrialRow)
    assert isinstance(names["trials"], pandas.DataFrame)
    assert names["learning_rates"].tolist() == [row.parameters["optim.lr"] for row in ours]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
