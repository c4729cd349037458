"""What storage promises, by all of its kinds: whole objects, one creator, an order of keys, errors that say what is."""

from pathlib import Path

import pytest

from sweep.storage.bucket import Bucket
from sweep.storage.objects import ObjectStore, Refused, SharedDirectory, Unreachable
from sweep.storage.opening import open_store, patiently
from tests.sweep.storage.bucket_server import BUCKET, BucketServer


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "directory":
        return SharedDirectory(str(tmp_path))
    server: BucketServer = request.getfixturevalue("bucket")
    return Bucket(f"{server.address}/{tmp_path.name}")


def test_an_object_is_read_as_it_was_written_and_replaced_as_a_whole(store):
    store.put("a/one", b"1")
    store.put("a/one", b"22")
    assert store.get("a/one") == b"22"
    with pytest.raises(FileNotFoundError):
        store.get("a/none")


def test_objects_are_listed_in_the_order_of_their_keys_by_prefix_and_from_a_key_on(store):
    for key in ("a/2", "a/10", "a/b/3", "b/1"):
        store.put(key, b"")
    assert [one.key for one in store.objects("a/")] == ["a/10", "a/2", "a/b/3"]
    assert [one.key for one in store.objects("a/", after="a/10")] == ["a/2", "a/b/3"]
    assert store.objects("none/") == []
    assert abs(store.now() - store.objects("b/")[0].modified) < 60


def test_of_two_who_create_an_object_one_is_told_that_it_did(store):
    assert [store.create("lease", b"first"), store.create("lease", b"second")] == [True, False]
    assert store.get("lease") == b"first"


def test_what_is_deleted_is_gone_and_may_be_deleted_again(store):
    store.put("a/one", b"1")
    for _ in range(2):
        store.delete(["a/one"])
    assert store.objects("a/") == []


def test_a_bucket_that_is_not_there_is_refused_by_its_name(bucket):
    with pytest.raises(Refused, match=r"s3://no-such-bucket/x cannot take a: NoSuchBucket"):
        Bucket("s3://no-such-bucket/x").put("a", b"")


def test_credentials_that_are_not_known_or_not_there_are_refused(bucket, monkeypatch):
    from moto.core.responses import ActionAuthenticatorMixin

    monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 0)
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(Refused, match="InvalidAccessKeyId"):
        Bucket(bucket.address).put("a", b"")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(Refused, match="Unable to locate credentials"):
        Bucket(bucket.address).put("a", b"")


def test_a_server_that_is_away_is_asked_again_until_it_answers(bucket):
    store = open_store(f"s3://{BUCKET}")
    with bucket.away(), pytest.raises(Unreachable, match="does not answer"):
        patiently(lambda: store.put("late", b"1"), seconds=0.1)
    patiently(lambda: store.put("late", b"1"), seconds=5)
    assert store.get("late") == b"1"
