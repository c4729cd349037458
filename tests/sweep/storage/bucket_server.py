"""A server of buckets on loopback, in this process, that keeps them in memory: it can be away and come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

import pytest

from sweep.storage.opening import open_store
from tests.sweep.store_server import HOST, free_port

BUCKET = "team-bucket"
SECRET = "planted-secret-of-the-bucket"


class BucketServer:
    """moto's server, with one bucket."""

    def __init__(self) -> None:
        self._port, self._server = free_port(), None
        self.address = f"s3://{BUCKET}/sweeps"
        self.endpoint = f"http://{HOST}:{self._port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "planted-key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def start(self) -> None:
        server = pytest.importorskip("moto.server", reason="moto is in the dev extra")
        self._server: Any = server.ThreadedMotoServer(HOST, self._port, verbose=False)
        self._server.start()
        urlopen(Request(f"{self.endpoint}/{BUCKET}", method="PUT"), timeout=20).close()

    def stop(self) -> None:
        self._server.stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        """It answers nothing inside the block, and has its buckets afterwards."""
        self.stop()
        try:
            yield
        finally:
            self._server.start()

    def age(self, seconds: float) -> None:
        """Let all objects be so much older."""
        from moto.s3.models import s3_backends

        (backend,) = (one["aws"] for one in s3_backends.values() if BUCKET in one["aws"].buckets)
        for key in backend.buckets[BUCKET].keys.values():
            key.last_modified -= timedelta(seconds=seconds)

    def damage(self, part: str) -> str:
        """Change a byte of the newest object with this in its key, which is returned."""
        store = open_store(self.address)
        key = [one.key for one in store.objects("") if part in one.key][-1]
        content = store.get(key)
        store.put(key, content[:-1] + bytes([content[-1] ^ 1]))
        return key


@contextmanager
def bucket_server() -> Iterator[BucketServer]:
    server = BucketServer()
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        open_store.cache_clear()
        yield server
        open_store.cache_clear()
    server.stop()
