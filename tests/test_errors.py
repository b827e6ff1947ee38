"""Errors of the router have OpenAI's shape, their status, and always become bytes."""

from __future__ import annotations

import json

import pytest

from mvllm_router import errors

# As the contract fixes them.
TABLE = {
    errors.RouterError: (500, "internal_error", 500),
    errors.BadRequest: (400, "invalid_request_error", 400),
    errors.Unauthorized: (401, "authentication_error", "invalid_api_key"),
    errors.Forbidden: (403, "permission_error", "forbidden"),
    errors.ModelNotAllowed: (403, "permission_error", "model_not_allowed"),
    errors.ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    errors.NotFound: (404, "invalid_request_error", "not_found"),
    errors.MethodNotAllowed: (405, "invalid_request_error", "method_not_allowed"),
    errors.SlowUpload: (408, "invalid_request_error", "request_timeout"),
    errors.Conflict: (409, "invalid_request_error", "exists_already"),
    errors.PreconditionFailed: (412, "invalid_request_error", "changed_since"),
    errors.TooLarge: (413, "invalid_request_error", "body_too_large"),
    errors.HeadTooLarge: (431, "invalid_request_error", "head_too_large"),
    errors.Overloaded: (429, "overloaded_error", "overloaded"),
    errors.RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.AttemptsFailed: (502, "upstream_error", "all_attempts_failed"),
    errors.NoBackend: (503, "upstream_error", "no_server_available"),
    errors.OutOfConnections: (503, "overloaded_error", "out_of_connections"),
    errors.Silence: (504, "upstream_error", "upstream_timeout"),
}


def test_the_table_names_every_error() -> None:
    assert set(TABLE) == {errors.RouterError, *errors.RouterError.__subclasses__()}


@pytest.mark.parametrize(
    ("kind", "row"), TABLE.items(), ids=lambda item: getattr(item, "__name__", "")
)
def test_each_error_has_its_status_type_and_code(
    kind: type[errors.RouterError], row: tuple[int, str, str | int]
) -> None:
    error = kind("what went wrong", param="model")
    status, name, code = row
    assert error.status == status
    assert json.loads(error.body()) == {
        "error": {"message": "what went wrong", "type": name, "param": "model", "code": code}
    }
    assert str(error) == "what went wrong"


def test_param_and_retry_after_are_empty_unless_given() -> None:
    assert errors.BadRequest("no").document()["error"]["param"] is None
    assert errors.BadRequest("no").retry_after is None
    assert errors.Overloaded("full", retry_after=3).retry_after == 3


def test_an_event_is_one_whole_line_whatever_the_message_holds() -> None:
    event = errors.AttemptsFailed("first\n\ndata: [DONE]\r\nlast").event()
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert b"\r" not in event


def test_other_scripts_are_sent_as_they_are() -> None:
    assert "größer 模型".encode() in errors.BadRequest("größer 模型").body()


def test_a_message_that_quotes_bytes_which_are_no_utf_8_is_sent_all_the_same() -> None:
    quoted = b"/v2/\xff".decode("utf-8", "surrogateescape")
    document = json.loads(errors.NotFound(f"There is no route {quoted}.").body())
    assert document["error"]["message"] == "There is no route /v2/?."
