"""Times and JSON come in strictly and go out in one form."""

import pytest

from authsvc.web.models import format_time, parse_time
from authsvc.web.problems import CodedValueError, Problem
from authsvc.web.routes import parse_json


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1970-01-01T00:00:01Z", 1_000_000, id="UTC"),
        pytest.param("1970-01-01t00:00:01z", 1_000_000, id="small letters"),
        pytest.param("1970-01-01T02:00:01+02:00", 1_000_000, id="east"),
        pytest.param("1969-12-31T22:00:01-02:00", 1_000_000, id="west"),
        pytest.param("1970-01-01T00:00:00.000001Z", 1, id="microsecond"),
        pytest.param("1970-01-01T00:00:00.1Z", 100_000, id="tenth"),
        pytest.param("1970-01-01T00:00:00.123456789Z", 123_456, id="nanoseconds are dropped"),
    ],
)
def test_a_time_with_an_offset_becomes_utc_microseconds(text, expected):
    """Every spelling of RFC 3339 means one instant."""
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        "2030-01-31T12:00:00",
        "2030-01-31",
        "2030-02-30T12:00:00Z",
        "2030-01-31T24:00:00Z",
        "2030-01-31T12:00:60Z",
        "2030-01-31T12:00:00+24:00",
        "2030-01-31T12:00:00+02:60",
        "2030-01-31T12:00:00+0200",
        "20300131T120000Z",
        "2030-W05-4T12:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "1969-12-31T23:59:59Z",
        "٢٠٣٠-01-31T12:00:00Z",
        "2030-01-31T12:00:00Z\n",
        " 2030-01-31T12:00:00Z",
        1_900_000_000,
        1.5,
        True,
        None,
        [],
    ],
)
def test_what_is_no_time_with_an_offset_is_refused(value):
    """A time without an offset, an impossible one and a number are errors, not guesses."""
    with pytest.raises(CodedValueError):
        parse_time(value)


def test_times_go_out_in_utc_and_come_back_unchanged():
    """The answer's spelling ends in Z and is read as the same instant."""
    for value in (1, 1_000_000, 1_893_456_000_000_000, 1_893_456_000_123_456):
        text = format_time(value)
        assert text.endswith("Z")
        assert parse_time(text) == value


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b'{"a":' * 40_000, id="deep objects"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": -Infinity}', id="infinity"),
        pytest.param(b'{"a": 1, "a": 2}', id="name twice"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="UTF-16"),
        pytest.param(b'{"a": "\xc3\x28"}', id="broken UTF-8"),
        pytest.param(b"9" * 10_000, id="endless integer"),
        pytest.param(b"{} {}", id="two texts"),
    ],
)
def test_what_is_not_one_json_text_is_a_422(body):
    """Whatever the parser trips over is the caller's error, never ours."""
    with pytest.raises(Problem) as caught:
        parse_json(body)
    assert caught.value.status_code == 422
