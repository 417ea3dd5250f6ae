"""What goes wrong with the database and with streams."""

from __future__ import annotations

from circuit.errors.root import CircuitError


class StorageError(CircuitError):
    """The database did not do what was asked."""

    code = "storage_error"


class DatabaseUnreachable(StorageError):
    code = "database_unreachable"
    retryable = True


class DatabaseNotStarted(DatabaseUnreachable):
    """The embedded Postgres does not start. `details` have its `log` and the `cause`."""

    code = "database_not_started"


class DatabaseMisconfigured(StorageError):
    code = "database_misconfigured"


class SchemaMismatch(StorageError):
    """The database is at another revision than this release."""

    code = "schema_mismatch"


class HomeNotWritable(StorageError):
    """The directory of the embedded database cannot be written."""

    code = "home_not_writable"


class UnstorableText(StorageError):
    """A text that was given is none that the database can hold, or compare with what it holds."""

    code = "unstorable_text"


class ArchiveDamaged(StorageError):
    """A file of the archive is missing, or is not what its manifest says."""

    code = "archive_damaged"


class ArtefactLost(StorageError):
    """A row refers to a large value that is not there any more, so nobody can say what the row holds."""

    code = "artefact_lost"


class GuardLost(StorageError):
    """A write found its case in another state than its owner knew."""

    code = "guard_lost"


class Fenced(StorageError):
    """This worker was declared dead: nothing that it writes counts any more."""

    code = "fenced"


class StreamError(CircuitError):
    """A stream cannot be read as asked."""

    code = "stream_error"


class InvalidCursor(StreamError):
    code = "invalid_cursor"


class StreamRetired(StreamError):
    """The frames of an execution that ended long ago were dropped; its answer and its usage stay."""

    code = "stream_retired"
