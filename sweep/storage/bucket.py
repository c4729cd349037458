"""A bucket of S3, or of a server that speaks its protocol, through boto3.

One request per object, and a condition on writing where two drivers must be kept apart. pyarrow's file systems, which
MLflow brings, have no such condition, ask twice to read, three times to delete, and ignore `request_timeout` on Linux.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from sweep.storage.objects import ObjectStore, Refused, Stored, Unreachable

CONNECT_SECONDS, READ_SECONDS = 5, 15  # without an answer
MOST_DELETED = 1000  # objects by one request
_AGAIN = {"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "429"}
_MISSING = {"NoSuchKey", "404"}
_THERE = {"PreconditionFailed", "ConditionalRequestConflict"}


class Bucket(ObjectStore):
    """Objects in a bucket below a prefix. Credentials and endpoint are boto3's: from the environment, a profile, or the
    machine's role."""

    def __init__(self, address: str) -> None:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        super().__init__(address.rstrip("/"))
        self._bucket, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._now = 0.0
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": 1})
        with self._asking("be opened"):
            self._client = boto3.session.Session().client("s3", config=config)

    def put(self, key: str, content: bytes) -> None:
        with self._asking(f"take {key}"):
            self._heard(self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content))

    def create(self, key: str, content: bytes) -> bool:
        place = {"Bucket": self._bucket, "Key": self._prefix + key}
        try:
            with self._asking(f"take {key}"):
                self._heard(self._client.put_object(**place, Body=content, IfNoneMatch="*"))
        except FileExistsError:
            return False
        return True

    def get(self, key: str) -> bytes:
        with self._asking(f"give {key}"):
            answer = self._heard(self._client.get_object(Bucket=self._bucket, Key=self._prefix + key))
            content: bytes = answer["Body"].read()
        return content

    def objects(self, prefix: str, after: str = "") -> list[Stored]:
        found: list[Stored] = []
        asked = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if after:
            asked["StartAfter"] = self._prefix + after
        while True:
            with self._asking(f"list {prefix}"):
                answer = self._heard(self._client.list_objects_v2(**asked))
            for one in answer.get("Contents", []):
                found.append(Stored(one["Key"].removeprefix(self._prefix), one["LastModified"].timestamp()))
            if not answer.get("IsTruncated"):
                return found
            asked["ContinuationToken"] = answer["NextContinuationToken"]

    def delete(self, keys: Iterable[str]) -> None:
        named = [{"Key": self._prefix + key} for key in keys]
        for start in range(0, len(named), MOST_DELETED):
            some = {"Objects": named[start : start + MOST_DELETED], "Quiet": True}
            with self._asking("delete objects"):
                self._heard(self._client.delete_objects(Bucket=self._bucket, Delete=some))

    def now(self) -> float:
        return self._now

    def _heard(self, answer: Any) -> Any:
        if date := answer["ResponseMetadata"]["HTTPHeaders"].get("date"):
            self._now = parsedate_to_datetime(date).timestamp()
        return answer

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn the errors of boto3 into ours; `what` is what the bucket is asked to do."""
        from botocore import exceptions  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.ClientError as error:
            raise self._answered(error, what) from error
        except (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError) as error:
            raise Unreachable(f"{self.address} does not answer: {error}") from error
        except (exceptions.BotoCoreError, ValueError) as error:
            raise Refused(f"{self.address} cannot {what}: {error}") from error

    def _answered(self, error: Any, what: str) -> OSError:
        said = error.response.get("Error", {})
        code = said.get("Code", "")
        if code in _MISSING:
            return FileNotFoundError(f"{self.address} has no such object")
        if code in _THERE:
            return FileExistsError(f"{self.address} has such an object")
        message = f"{self.address} cannot {what}: {code}: {said.get('Message', '')}"
        busy = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        return Unreachable(message) if busy or code in _AGAIN else Refused(message)
