"""Where a sqlite file of MLflow lies, by the system's own list of mounts."""

from pathlib import Path

import pytest

from sweep.tracking.sqlite_store import MOUNTS, network_sentence

LISTED = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 0:30 / /shared rw shared:5 - nfs4 10.0.0.9:/export rw,vers=4.1
24 22 0:31 / /with\\040blank rw - fuse.sshfs host:/ rw
25 23 0:32 / /shared/scratch rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [("/shared/runs/x", "nfs4"), ("/with blank/x", "fuse.sshfs"), ("/shared/scratch/x", ""), ("/home/me/runs", "")],
)
def test_a_file_on_a_network_is_said_to_be_there_and_what_is_better(tmp_path: Path, directory: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(LISTED)
    said = network_sentence(Path(directory), mounts)
    assert said.startswith(f"mlflow.db lies on {kind}, where sqlite's locks may fail: ") if kind else said == ""
    assert ("tracking.uri=http://HOST:5000" in said) is bool(kind)


def test_where_the_system_lists_no_mounts_nothing_is_said(tmp_path: Path) -> None:
    assert network_sentence(tmp_path, tmp_path / "none") == ""
    assert "nfs" not in network_sentence(tmp_path, MOUNTS)
