"""The one tree of errors. Each says what is wrong, where, and what to do; each knows its exit code and status.

User faults raise these. Broken invariants of our own are bugs and stay ordinary exceptions. "No feasible
plan" is a value with reasons (`spec.verdict`), not an error, until a command must leave with a code.
"""

from __future__ import annotations

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 0, 1, 2, 3


class TrimtabError(Exception):
    """Base of all expected faults.

    `where` names the place (key path, field, file); `remedy` is a sentence that says what to do.
    """

    exit_code = EXIT_FAILED
    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message, self.where, self.remedy = message, where, remedy

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{place}{self.message}{remedy}"


class UsageError(TrimtabError):
    """The request itself is wrong: a flag, a field, a value."""

    exit_code, status, code = EXIT_USAGE, 400, "invalid_request_error"


class RecipeError(UsageError):
    """A recipe cannot be read; `where` is `FILE:LINE key.path`."""

    code = "invalid_recipe"


class DataError(UsageError):
    """Data that is missing, empty, malformed, or shared between train and test."""

    code = "invalid_data"


class ModelError(UsageError):
    """A model folder that cannot be taken: no config, a pickle, remote code, an unknown architecture."""

    code = "invalid_model"


class NotFoundError(TrimtabError):
    """A reference that names nothing."""

    exit_code, status, code = EXIT_USAGE, 404, "not_found"


class IntegrityError(TrimtabError):
    """Stored bytes differ from what was signed; `where` names the file."""

    code = "integrity_error"


class RefusedError(TrimtabError):
    """A gate refused, or nothing feasible was found; the message carries the reasons."""

    exit_code, status, code = EXIT_REFUSED, 409, "refused"


class EngineError(TrimtabError):
    """An engine cannot load, died, or stopped making progress."""

    status, code = 503, "engine_error"


class UnavailableError(TrimtabError):
    """Something that is needed cannot be reached now; the same request may work later."""

    status, code = 503, "unavailable"


class RankLostError(EngineError):
    """A process of a group was killed or hangs: a new group may go on from the last checkpoint."""


class OverloadedError(TrimtabError):
    """The service has more work than it may queue. `retry_after` is in seconds."""

    status, code = 429, "overloaded"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthenticationError(TrimtabError):
    """No key, or not a valid one."""

    status, code = 401, "invalid_api_key"


class PermissionDeniedError(TrimtabError):
    """A valid key without the right that the route asks for."""

    status, code = 403, "permission_denied"
