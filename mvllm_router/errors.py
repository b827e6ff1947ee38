"""The errors that the router itself answers with.

    RouterError              500  internal_error
    ├─ BadRequest            400  the body is no JSON object
    ├─ Unauthorized          401  missing or wrong API key
    ├─ Forbidden             403  the key does not allow it
    ├─ ModelNotAllowed       403  the key may not use the model
    ├─ ModelNotFound         404  no server has the model
    ├─ NotFound              404  no such route
    ├─ MethodNotAllowed      405
    ├─ SlowUpload            408  the request stopped coming
    ├─ Conflict              409  what is to be added is there already
    ├─ PreconditionFailed    412  it was changed since (If-Match)
    ├─ TooLarge              413  the body is over `max_body_size`
    ├─ HeadTooLarge          431  the head is longer than the router reads
    ├─ Overloaded            429  the queue is full (Retry-After)
    ├─ RateLimited           429  a limit of the key is reached (Retry-After)
    ├─ AttemptsFailed        502  every attempt failed
    ├─ NoBackend             503  no server is up for the model (Retry-After)
    ├─ OutOfConnections      503  the system lets the router open no more (Retry-After)
    └─ Silence               504  a server said nothing for longer than `request_timeout`

Each has the shape that OpenAI's API gives its own, so that clients show the message.
"""

from __future__ import annotations

import json


class RouterError(Exception):
    """An error that a client sees; subclasses fix the HTTP status and the type."""

    status = 500
    type = "internal_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        allow: str = "",
    ) -> None:
        """Take the text for the client, and what else helps it.

        Args:
            param: the field of the request that is at fault.
            retry_after: seconds to wait.
            allow: the methods that the route takes, when it is the method that is wrong.
        """
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.allow = allow

    def document(self) -> dict[str, dict[str, str | int | None]]:
        """Return the OpenAI-shaped error object; `code` falls back to the status."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code or self.status,
            }
        }

    def body(self) -> bytes:
        """Return the error object as JSON."""
        # A message may quote what a client sent, which need not be valid UTF-8.
        return json.dumps(self.document(), ensure_ascii=False).encode("utf-8", "replace")

    def event(self) -> bytes:
        """Return the error as one server-sent event, for a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"


class BadRequest(RouterError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(RouterError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(RouterError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class ModelNotAllowed(RouterError):
    status = 403
    type = "permission_error"
    code = "model_not_allowed"


class ModelNotFound(RouterError):
    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class NotFound(RouterError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(RouterError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class SlowUpload(RouterError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class Conflict(RouterError):
    status = 409
    type = "invalid_request_error"
    code = "exists_already"


class PreconditionFailed(RouterError):
    status = 412
    type = "invalid_request_error"
    code = "changed_since"


class TooLarge(RouterError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class HeadTooLarge(RouterError):
    status = 431
    type = "invalid_request_error"
    code = "head_too_large"


class Overloaded(RouterError):
    status = 429
    type = "overloaded_error"
    code = "overloaded"


class RateLimited(RouterError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class AttemptsFailed(RouterError):
    status = 502
    type = "upstream_error"
    code = "all_attempts_failed"


class NoBackend(RouterError):
    status = 503
    type = "upstream_error"
    code = "no_server_available"


class OutOfConnections(RouterError):
    status = 503
    type = "overloaded_error"
    code = "out_of_connections"


class Silence(RouterError):
    status = 504
    type = "upstream_error"
    code = "upstream_timeout"
