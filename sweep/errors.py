"""The two ways a command fails: the user's input is wrong (exit code 2), or the work failed (exit code 1)."""

# What PyYAML raises besides its own error, where a value is not what its tag or form says: `!!bool x`, a 13th month.
NO_YAML = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class InputError(Exception):
    """The user asked for something impossible: the message says what was asked, why not, and what is possible."""


class WorkError(Exception):
    """The work itself failed: the message says what is kept and how to go on."""


class StorageError(WorkError):
    """A file could not be written: the disk is full, read-only or gone. What the file held before is kept."""
