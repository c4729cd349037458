"""MLflow's store in a sqlite file, looked at without MLflow: what state it is in, and where its artifacts are."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
# Where MLflow writes down absolute places of artifacts.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a sqlite store; None for a store of another kind."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifacts_beside(file: Path) -> str:
    """Return the URI of the directory for artifacts beside a store's file."""
    return (file.parent / ARTIFACTS).resolve().as_uri()


def fault_in(file: Path) -> str:
    """Say what is wrong with a store and how it is mended; empty where nothing is, or where it cannot be asked now."""
    damaged = f"move it away: `sweep deliver {file.parent.name}` then tells a new one everything again"
    if not file.is_file():
        return f"is damaged (it is no file). Bring back a copy, or {damaged}."
    try:
        with _reading(file) as store:
            (answer,) = store.execute("PRAGMA quick_check(1)").fetchone()
            if answer != "ok":
                return f"is damaged ({' '.join(answer.split())}). Bring back a copy, or {damaged}."
            return _other_version(file, store)
    except sqlite3.OperationalError:
        return ""  # another process is writing, or it can be read later
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error}). Bring back a copy, or {damaged}."


def _other_version(file: Path, store: sqlite3.Connection) -> str:
    if not _has(store, "alembic_version"):
        return ""
    found = [revision for (revision,) in store.execute("SELECT version_num FROM alembic_version")]
    known, latest = _revisions()
    if not found or not latest or found[0] == latest:
        return ""
    if found[0] in known:
        return (
            f"is of an older MLflow (schema {found[0]}, this one has {latest}). Keep a copy of it, then run "
            f"`mlflow db upgrade {SQLITE}{file}`."
        )
    return (
        f"is of a newer MLflow (schema {found[0]}, this one has {latest}): use the version of MLflow that wrote it, or "
        f"move the file away, and `sweep deliver {file.parent.name}` tells a new one everything."
    )


@cache
def _revisions() -> tuple[set[str], str]:
    """List the schemas that the installed MLflow knows, and the latest of them; MLflow itself takes seconds to load."""
    spec = find_spec("mlflow")
    root = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path()
    texts = [file.read_text(encoding="utf-8") for file in root.glob("store/db_migrations/versions/*.py")]
    known = {found[1] for text in texts if (found := re.search(r'^revision = "(\w+)"', text, re.MULTILINE))}
    former = {found[1] for text in texts if (found := re.search(r'^down_revision = "(\w+)"', text, re.MULTILINE))}
    latest = known - former
    return known, latest.pop() if len(latest) == 1 else ""


def move_artifacts(file: Path) -> None:
    """Let a store that was moved find its artifacts beside it, and put further ones there. sqlite3.Error: it cannot be
    written."""
    if not file.is_file():
        return
    here = artifacts_beside(file)
    with closing(sqlite3.connect(file)) as store, store:
        if not _has(store, "experiments"):
            return
        found = store.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?",
            (f"file:%/{ARTIFACTS}",),
        )
        for (there,) in found.fetchall():
            if there != here:
                _replace_beginnings(store, there, here)


def _replace_beginnings(store: sqlite3.Connection, there: str, here: str) -> None:
    for table, column in _PLACES:
        if _has(store, table):
            changed = f"UPDATE {table} SET {column} = :here || substr({column}, length(:there) + 1) "
            below = f"WHERE {column} = :there OR substr({column}, 1, length(:there) + 1) = :there || '/'"
            store.execute(changed + below, {"here": here, "there": there})


def deleted_experiment(file: Path, name: str) -> str:
    """Return the id of the experiment of this name where that was deleted; empty where not, or where none can say."""
    try:
        with _reading(file) as store:
            query = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
            found = store.execute(query, (name,)).fetchone()
            return str(found[0]) if found else ""
    except sqlite3.Error:
        return ""


def _has(store: sqlite3.Connection, table: str) -> bool:
    return bool(store.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone())


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
        yield store


# --- where it lies ----------------------------------------------------------------------------------------------------

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "gpfs", "beegfs", "fuse.*")
MOUNTS = Path("/proc/self/mountinfo")


def network_sentence(directory: Path, mounts: Path = MOUNTS) -> str:
    """Say what is to be known where mlflow.db lies on a network file system; empty where it lies on a disk."""
    kind = _file_system(directory, mounts)
    if not any(fnmatchcase(kind, pattern) for pattern in NETWORK):
        return ""
    return (
        f"mlflow.db lies on {kind}, where sqlite's locks may fail: open it on no other machine while a stage runs, or "
        "give tracking.uri=http://HOST:5000 of an MLflow server, whose database is on its own disk."
    )


def _file_system(directory: Path, mounts: Path) -> str:
    """Name the type of the file system that holds a directory; empty where the system does not tell."""
    if not mounts.exists():
        return ""
    found = {}  # the later mount covers the earlier one
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        found[Path(before.split()[4].replace("\\040", " "))] = after.split()[0]
    place = directory.resolve()
    return next((found[path] for path in (place, *place.parents) if path in found), "")
