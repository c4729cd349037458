"""User and password in the address of an MLflow server: taken out where the address comes in, kept in the environment,
from which MLflow's client reads them, and written nowhere."""

import os
import re
from urllib.parse import unquote

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_CREDENTIALS = re.compile(r"(?<=://)(?P<user>[^:@/?#\s]+):(?P<password>[^/?#\s]+)@")
_ARGUMENT = re.compile(r"\+{0,2}tracking(\.uri)?=")  # or tracking={uri: ...}
_IN_A_TEXT = re.compile(
    r"((?<=:/)/?)[^\s/'\"][^\s'\"]*(?=@)|((?<=[?&;])[\w-]*(?:token|passw|secret|key|auth)[\w-]*=)[^\s&;'\"]+",
    re.IGNORECASE,
)


def take_credentials(address: str, replace: bool = True) -> str:
    """Return the address without user and password, which the environment holds from then on. `replace` False: unless
    it holds others.

    >>> take_credentials("http://me:p%40ss@mlflow.example:5000"), os.environ[PASSWORD]
    ('http://mlflow.example:5000', 'p@ss')
    """
    found = _CREDENTIALS.search(address)
    if found is None:
        return address
    if replace or PASSWORD not in os.environ:
        os.environ[USER], os.environ[PASSWORD] = unquote(found["user"]), unquote(found["password"])
    return _CREDENTIALS.sub("", address, count=1)


def take_from_words(words: list[str]) -> list[str]:
    """Return the words of a command line without the credentials of tracking.uri."""
    return [take_credentials(word) if _ARGUMENT.match(word) else word for word in words]


def without_secrets(address: str) -> str:
    """Return an address to be shown although it is wrong: what may be a password or a token is left out."""
    return re.sub(r"(?<=[?#]).*", "...", re.sub(r"^(\w+:/+)?.*@", r"\1...@", address))


def hidden(text: str) -> str:
    """Return a text to be shown without what its addresses may hold of passwords and tokens.

    >>> hidden("no answer from http://me:secret@mlflow.example:5000/?token=secret")
    'no answer from http://...@mlflow.example:5000/?token=...'
    """
    return _IN_A_TEXT.sub(lambda found: f"{found[1] or found[2] or ''}...", text)
