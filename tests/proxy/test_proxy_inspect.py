"""Finding the model that a request names, and giving it another name."""

from __future__ import annotations

import json

import pytest

from mvllm_router.errors import BadRequest
from mvllm_router.proxy.inspect import (
    priority_of_header,
    wanted_of,
    wanted_of_object,
    with_model,
)

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data; boundary=BOUND"


def as_name(model: object) -> str | None:
    assert model is None or isinstance(model, str)
    return model


def model_in_json(body: bytes, query: str = "") -> str | None:
    return as_name(wanted_of_object(body).model)


def model_elsewhere(body: bytes, content_type: str = "", query: str = "") -> str | None:
    return as_name(wanted_of(body, content_type, query).model)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"tiny"}', "tiny"),
        (b' \r\n\t{ "stream" : true ,\n "model" : "tiny" , "x": [1,{"model":"no"}] } \n', "tiny"),
        ('{"model":"模型/größe"}'.encode(), "模型/größe"),
        (b'{"model":"\\u00fc\\/\\"x\\""}', 'ü/"x"'),
        (b'{"mod\\u0065l":"tiny"}', "tiny"),
        (b'{"model":"first","model":"last"}', "last"),
        (b"{}", None),
        (b'{"messages":[{"model":"no"}]}', None),
        (b'{"Model":"no"}', None),
        (b'{"model":null}', None),
        (b'{"model":""}', None),
        (b'{"model":5}', None),
        (b'{"model":["tiny"]}', None),
        (b'{"model":{"name":"tiny"}}', None),
        (b'{"model":true}', None),
    ],
)
def test_the_model_of_a_json_object(body: bytes, model: str | None) -> None:
    assert model_in_json(body) == model
    assert model_elsewhere(body, JSON_TYPE) == model


def test_a_large_body_with_the_model_at_its_end() -> None:
    image = "data:image/png;base64," + "iVBORw0KGgo" * 2_000_000
    body = json.dumps({"messages": [{"content": image}], "model": "vision"}).encode()
    assert model_in_json(body) == "vision"


NO_OBJECTS = {
    "empty": b"",
    "blank": b"  ",
    "text": b"hello",
    "array": b'[{"model":"tiny"}]',
    "string": b'"model"',
    "number": b"5",
    "null": b"null",
    "cut off": b'{"model":"tiny"',
    "more after it": b'{"model":"tiny"} x',
    "single quotes": b"{'model':'tiny'}",
    "no UTF-8": b'{"model":"\xff"}',
    "half a character": b'{"model":"\\ud800"}',
    "binary": bytes(range(256)),
    "nested without end": b'{"a":' * 100_000,
    "nested deeply": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a model nested deeply": b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_what_is_no_json_object_is_refused_where_it_must_be_one(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not a JSON object"):
        model_in_json(body)


@pytest.mark.parametrize("body", NO_OBJECTS.values(), ids=NO_OBJECTS)
@pytest.mark.parametrize("content_type", ["", JSON_TYPE, "application/x-ndjson", "audio/wav"])
def test_and_is_the_servers_business_where_it_need_not(body: bytes, content_type: str) -> None:
    assert model_elsewhere(body, content_type) is None


@pytest.mark.parametrize(
    ("query", "model"),
    [
        ("model=tiny", "tiny"),
        ("a=b&model=org%2Ftiny+x&model=second", "org/tiny x"),
        ("model=", None),
        ("a=b", None),
        ("", None),
        ("models=x", None),
    ],
)
def test_the_query_may_name_it(query: str, model: str | None) -> None:
    assert model_elsewhere(b"", query=query) == model
    assert model_elsewhere(b"{}", query=query) == model


def test_the_body_goes_before_the_query() -> None:
    assert model_elsewhere(b'{"model":"body"}', query="model=query") == "body"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--BOUND\r\n" + part + b"\r\n" for part in parts) + b"--BOUND--\r\n"


AUDIO = (
    b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\x00\xff\r\n\r\nmodel\r\n"
)
MODEL = b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1'


@pytest.mark.parametrize(
    "body",
    [
        form(MODEL, AUDIO),
        form(AUDIO, MODEL),
        form(b"Content-Disposition: form-data; name=model\r\n\r\nwhisper-1"),
        form(MODEL.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\nX: y\r\n\r\n")),
        form(b'content-disposition: form-data;name="model"\r\n\r\nwhisper-1'),
    ],
    ids=["first", "last", "unquoted", "with a type", "lower case"],
)
@pytest.mark.parametrize("content_type", [FORM_TYPE, "Multipart/Form-Data; boundary=BOUND"])
def test_the_model_of_a_form(body: bytes, content_type: str) -> None:
    assert model_elsewhere(body, content_type) == "whisper-1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        form(AUDIO),
        form(AUDIO.replace(b"a.wav", b"model")),
        form(AUDIO.replace(b'filename="a.wav"', b'filename="model"')),
        form(AUDIO.replace(b'name="file"; filename="a.wav"', b'name="file"; filename=model')),
        form(b'Content-Disposition: form-data; name="models"\r\n\r\nx'),
        form(b'Content-Disposition: form-data; name="model"; filename="m"\r\n\r\nx'),
        form(b'Content-Disposition: form-data; name="model"\r\n\r\n'),
        form(b'Content-Disposition: form-data; name="model"\r\n\r\n' + b"x" * 257),
    ],
)
def test_a_form_that_names_no_model(body: bytes) -> None:
    assert model_elsewhere(body, FORM_TYPE) is None


def test_a_form_that_names_two_models_is_refused_since_servers_differ_in_which_they_take() -> None:
    other = MODEL.replace(b"whisper-1", b"other")
    with pytest.raises(BadRequest, match="more than one model"):
        model_elsewhere(form(MODEL, other), FORM_TYPE)
    assert model_elsewhere(form(MODEL, MODEL), FORM_TYPE) == "whisper-1"


def test_where_the_body_names_the_model_the_query_is_not_asked() -> None:
    """Servers would not ask it either: they would take their default model."""
    assert model_in_json(b"{}", "model=tiny") is None


def test_a_content_type_does_not_make_a_form_of_a_json_route() -> None:
    with pytest.raises(BadRequest, match="not a JSON object"):
        wanted_of_object(form(MODEL))


def test_a_form_made_to_keep_the_router_busy_does_not() -> None:
    # Each of these lines could begin the field; looking through all the rest for each of them
    # would take hours, and the test its time limit.
    hostile = b' name="model"\r\n' * 500_000
    assert model_elsewhere(hostile, FORM_TYPE) is None


LARGEST = 2**53 - 1


@pytest.mark.parametrize("priority", [0, 1, 10, -1, -1000, LARGEST, -LARGEST])
def test_the_priority_of_a_json_object(priority: int) -> None:
    body = b'{"model":"m","priority":%d}' % priority
    for wanted in (wanted_of_object(body), wanted_of(body, JSON_TYPE, "")):
        assert (wanted.model, wanted.priority) == ("m", priority)


@pytest.mark.parametrize("body", [b"{}", b'{"priority":null}', b'{"x":{"priority":5}}'])
def test_a_request_need_not_say_a_priority(body: bytes) -> None:
    assert wanted_of_object(body).priority is None
    assert wanted_of(body, JSON_TYPE, "").priority is None


NO_PRIORITIES = ["1.0", "1.5", '"1"', '"high"', "true", "[]", "{}", "1e3", str(2**53), "9" * 400]


@pytest.mark.parametrize("value", NO_PRIORITIES)
def test_a_priority_that_is_none_is_refused_where_it_must_be_one(value: str) -> None:
    body = f'{{"model":"m","priority":{value}}}'.encode()
    with pytest.raises(BadRequest, match="`priority` has to be a whole number") as caught:
        wanted_of_object(body)
    assert caught.value.param == "priority"


@pytest.mark.parametrize("value", NO_PRIORITIES)
def test_and_means_something_else_where_the_route_may_mean_something_else(value: str) -> None:
    wanted = wanted_of(f'{{"model":"m","priority":{value}}}'.encode(), JSON_TYPE, "")
    assert (wanted.model, wanted.priority) == ("m", None)


def test_a_form_has_no_priority() -> None:
    part = b'Content-Disposition: form-data; name="priority"\r\n\r\n5'
    assert wanted_of(form(MODEL, part), FORM_TYPE, "priority=5").priority is None


@pytest.mark.parametrize("value", [b"0", b"7", b"-7", b"+7", b"007", b"-9007199254740991"])
def test_the_priority_that_a_header_gives(value: bytes) -> None:
    assert priority_of_header(value) == int(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"high",
        b"1.0",
        b"1e3",
        b"1, 2",
        b"- 1",
        b"0x10",
        b"1_0",
        "١".encode(),
        b"9" * 16,
        b"1\n",
    ],
)
def test_a_header_that_gives_none_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="`x-priority` has to be a whole number"):
        priority_of_header(value)


def test_another_name_changes_nothing_else_byte_for_byte() -> None:
    values = [
        b"1.0",
        b"1e5",
        b"-0",
        b"123456789012345678901234567890",
        b"0.1000000000000000055511151231257827",
        '"gr\\u00fcße 模型 \\/ \\n"'.encode(),
        b'{"b" : [1,  2.50], "a":null}',
        b"[ ]",
        b"true",
        b'"\xff"',
    ]
    for value in values:
        renamed = with_model(b'{"x": %b , "model":"alias", "z":0.10}' % value, "own")
        assert renamed == b'{"x":%b,"model":"own","z":0.10}' % value
        if b"\xff" not in value:
            assert json.loads(renamed)["model"] == "own"


def test_another_name_takes_the_place_of_the_old_one() -> None:
    assert (
        with_model(b'{"model":"a","n":1}', 'o"w\\n/模')
        == '{"model":"o\\"w\\\\n/模","n":1}'.encode()
    )
    assert json.loads(with_model(b'{"model":"a","model":"b","n":1}', "own")) == {
        "model": "own",
        "n": 1,
    }
    assert with_model(b' {"mod\\u0065l":"a"}', "own") == b'{"model":"own"}'
    assert with_model(b'{"n":1}', "own") == b'{"n":1,"model":"own"}'


@pytest.mark.parametrize("body", [form(MODEL, AUDIO), form(AUDIO, MODEL)])
def test_another_name_in_a_form(body: bytes) -> None:
    renamed = with_model(body, r"org/\1ü")
    assert renamed == body.replace(b"whisper-1", r"org/\1ü".encode())
    assert model_elsewhere(renamed, FORM_TYPE) == r"org/\1ü"


@pytest.mark.parametrize("body", [b"", b"raw audio", b'["model"]'])
def test_a_body_that_names_no_model_stays_as_it_is(body: bytes) -> None:
    assert with_model(body, "own") == body


def test_an_object_with_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest, match="not a JSON object"):
        with_model(b'{"\xff":1,"model":"a"}', "own")
