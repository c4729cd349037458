"""Storage that cannot be is refused before anything is started: exit code 2, one message, nothing written."""

from pathlib import Path

import pytest

from sweep.config.compose import load
from sweep.stages.doctor import CHECKS
from sweep.storage.opening import open_store
from tests.sweep.storage.bucket_server import SECRET, BucketServer
from tests.sweep.sweep_command import Command, assert_refused, in_empty_directory, tree

SEARCH = ("search", "x", "space=smoke", "data.per_class=5", "training.epochs=2", "model.width=2")


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


@pytest.mark.parametrize(
    ("address", "needle"),
    [
        ("gs://bucket/x", "Others, such as gs://, are not possible"),
        ("s3://key:hidden@bucket/x", "runtime.storage=s3://...@bucket/x: possible are s3://BUCKET/PREFIX"),
        ("s3://bucket/x?secret=hidden", "runtime.storage=s3://bucket/x?...: possible are"),
        ("s3:/bucket", "a directory that all machines see, by its whole path"),
        ("shared", "a directory that all machines see, by its whole path"),
        ("/no/such/directory", "there is no such directory on this machine; mount or make it"),
    ],
)
def test_an_address_that_is_none_is_refused_with_those_that_are_and_without_its_secrets(
    sweep: Command, address: str, needle: str
) -> None:
    assert_refused(sweep, [*SEARCH, f"'runtime.storage=\"{address}\"'".strip("'")], (needle,))
    assert "hidden" not in str(sweep("search", "x", f'runtime.storage="{address}"'))


def test_a_bucket_that_is_not_there_and_a_server_that_is_away_are_refused(sweep: Command, bucket: BucketServer) -> None:
    assert_refused(sweep, [*SEARCH, "runtime.storage=s3://no-such-bucket"], ("s3://no-such-bucket", "NoSuchBucket"))
    with bucket.away():
        assert_refused(sweep, [*SEARCH, f"runtime.storage={bucket.address}"], ("does not answer", "AWS_ENDPOINT_URL"))


def test_the_doctor_asks_storage_and_leave_nothing_there(bucket: BucketServer) -> None:
    before = open_store(bucket.address).objects("")
    found = {name: list(CHECKS["storage"](load([f"runtime.storage={name}"]))) for name in (bucket.address, "s3://nope")}
    assert [(one.level.value, one.text.split(" ")[0]) for one in found[bucket.address]] == [("ok", bucket.address)]
    assert [(one.level.value, "NoSuchBucket" in one.text) for one in found["s3://nope"]] == [("failed", True)]
    assert open_store(bucket.address).objects("") == before
    assert list(CHECKS["storage"](load([]))) == []


def test_a_sweep_that_storage_does_not_have_is_refused_with_those_it_has(sweep: Command, bucket: BucketServer) -> None:
    needles = (f"There is no sweep nope in {bucket.address}", "those there are")
    assert_refused(sweep, ["resume", "nope", f"runtime.storage={bucket.address}"], needles)


def test_what_is_written_down_of_a_bucket_has_no_secret_of_it(sweep: Command, bucket: BucketServer) -> None:
    said = sweep(*SEARCH, f"runtime.storage={bucket.address}", "--cfg", "job")
    assert said.code == 0
    assert bucket.address in said.out
    assert SECRET not in str((said, tree(Path.cwd())))
