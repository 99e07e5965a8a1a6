"""Errors in OpenAI's shape: `{"error": {message, type, param, code}}`, with the statuses that its clients handle.

`ApiError` is raised by the handlers; `as_api_error` converts the exceptions of the packages.
"""

from __future__ import annotations

from typing import Any

from rag.errors import BadInput, CannotRun, Problem
from runners.serving.request import RequestTimeout
from runners.serving.worker import WorkerBusy

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Store the fields of the response.

        Args:
            status: HTTP status.
            message: what went wrong, for the client.
            param: the field of the request that is at fault.
            code: machine-readable code.
            retry_after: seconds for the Retry-After header.
            extra: further keys of the body, next to `error`.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.extra = extra or {}

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        error = {
            "message": self.message,
            "type": ERROR_TYPES.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error, **self.extra}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        if self.status == 401:
            # Browsers show a password prompt for Basic; programs send the token as Bearer.
            headers["WWW-Authenticate"] = 'Bearer, Basic realm="tunewise", charset="UTF-8"'
        return headers


def as_api_error(problem: Exception) -> ApiError:
    """Convert an exception to the error that a client gets; a bug's own message is not revealed."""
    if isinstance(problem, ApiError):
        return problem
    if isinstance(problem, WorkerBusy):
        return ApiError(503, problem.message, code="queue_full", retry_after=problem.retry_after)
    if isinstance(problem, RequestTimeout):
        return ApiError(503, problem.message, code="time_limit", retry_after=5)
    if isinstance(problem, BadInput):
        code = "context_length_exceeded" if "tokens: with" in problem.message else None
        return ApiError(400, str(problem), code=code)
    if isinstance(problem, CannotRun):
        return ApiError(503, str(problem), code="cannot_run", retry_after=30)
    if isinstance(problem, Problem):
        return ApiError(400, str(problem))
    return ApiError(500, "a bug in tunewise: the server's log has the traceback", code="internal_error")
