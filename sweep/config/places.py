"""The place in storage where a sweep is kept besides its run directory: a bucket, or a directory that all machines
see."""

import re
from pathlib import Path

from sweep.config.credentials import without_secrets
from sweep.config.search_config import check_path

BUCKET = "s3://"
_ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._=-]*)*/?")


def is_bucket(address: str | None) -> bool:
    return address is not None and address.startswith(BUCKET)


def check_storage(address: str) -> None:
    """Raise ValueError unless it is an address of S3 without anything secret, or the whole path of a directory."""
    if _ADDRESS.fullmatch(address):
        return
    if "://" in address or not Path(address).is_absolute():
        raise ValueError(
            f"runtime.storage={without_secrets(address)}: possible are s3://BUCKET/PREFIX, and a directory that all "
            "machines see, by its whole path. What the bucket asks for is said in the environment, as for other "
            "programs: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a profile or role; AWS_ENDPOINT_URL where it is "
            "not Amazon's. Others, such as gs://, are not possible."
        )
    check_path("runtime.storage", address)
