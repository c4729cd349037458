"""One server of buckets for the tests of storage."""

from collections.abc import Iterator

import pytest

from tests.sweep.storage.bucket_server import BucketServer, bucket_server


@pytest.fixture(scope="session")
def bucket() -> Iterator[BucketServer]:
    with bucket_server() as server:
        yield server
