"""No secret and no forged line can be logged, by whomever and in whatever value."""

from __future__ import annotations

import io
import json
import logging
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from authsvc.core import tokens
from authsvc.core.credentials import ConnectRequest
from authsvc.core.facts import TokenKind
from authsvc.logs import clean_text, configure_logs, is_heard


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize("kind", list(TokenKind))
def test_no_token_is_logged_from_anywhere(form: str, kind: TokenKind):
    """Not as an event, key, value, nested value, bytes, argument, exception, warning or name of a logger."""
    text = tokens.mint(kind)
    stream = io.StringIO()
    configure_logs(level="debug", form=form, stream=stream)
    log = structlog.get_logger("test")
    event = f"event {text}"
    log.info(event, value=text, nested={"list": [text, {text: (text,)}]}, raw=text.encode(), other={text})
    log.info("object", value=RuntimeError(text))
    logging.getLogger("foreign").warning("argument %s", text)
    logging.getLogger("amqtt.broker").error("argument %(a)s", {"a": text})
    logging.getLogger("uvicorn.error").error("said %s", text, extra={"color_message": text})
    try:
        raise ValueError(f"holds {text}")
    except ValueError:
        log.exception("failed")
        logging.getLogger("foreign").exception("failed")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit(f"warned {text}", UserWarning, "f.py", 1)
    logged = stream.getvalue()
    assert logged.count("\n") >= 7
    assert text[6:] not in logged
    assert f"as{kind.value}_…" in logged or f"as{kind.value}_\\u2026" in logged


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_record_is_logged_as_it_shows_itself(form: str):
    """The password of a CONNECT is hidden, also where it is no token and the record is a tuple of its fields."""
    stream = io.StringIO()
    configure_logs(form=form, stream=stream)
    asked = ConnectRequest(client_id="c1", clean_session=True, password=b"my birthday")
    structlog.get_logger("test").info("asked", request=asked, several=[asked])
    assert "birthday" not in stream.getvalue()
    assert stream.getvalue().count("password=hidden") == 2


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_client_cannot_forge_a_line(form: str):
    """Line ends, terminal escapes and separators of other alphabets are escaped in every value."""
    stream = io.StringIO()
    configure_logs(form=form, stream=stream)
    evil = "c1\r\n2026-01-01 [info] all is well\x1b[2J\x85\u2028\u202e\x00\x7f\t"
    structlog.get_logger("test").info("connect_refused", client_id=evil)
    logging.getLogger("foreign").warning("said %s", evil)
    logged = stream.getvalue()
    assert logged.count("\n") == 2
    assert not set(logged) & set("\r\x1b\x85\u2028\u202e\x00\x7f\t")
    if form == "json":
        assert all(json.loads(line) for line in logged.splitlines())


def test_an_exceptions_lines_are_indented():
    """A traceback is readable, and no line of it can pass for a log line."""
    stream = io.StringIO()
    configure_logs(form="human", stream=stream)
    try:
        raise ValueError("x\n2026-01-01T00:00:00Z [info     ] forged")
    except ValueError:
        structlog.get_logger("test").exception("failed")
    lines = stream.getvalue().splitlines()
    assert any(line.startswith("    ") and "forged" in line for line in lines)
    assert not any(line.startswith("2026-01-01T00:00:00Z [info") for line in lines[1:])


def test_every_character_that_is_no_text_is_escaped_also_in_a_short_value():
    """Control characters, separators and overrides; a character of any alphabet stays, and so does plain text."""
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)):
        for lines in (False, True):
            assert chr(code) not in clean_text(f"a{chr(code)}b", lines=lines).replace("\n    ", "")
    assert clean_text("\ud800") == "\\ud800"
    plain = "".join(map(chr, range(0x20, 0x7F)))
    assert clean_text(plain) == clean_text(plain, lines=True) == plain
    assert clean_text("größer als 温度") == "größer als 温度"
    assert clean_text("x" * 3_000) == "x" * 2_000 + "…"


@given(st.text(), st.sampled_from(list(TokenKind)), st.text())
def test_whatever_stands_around_a_token_it_is_cut(before: str, kind: TokenKind, after: str):
    """No text before or after it hides a token from the cleaning."""
    text = tokens.mint(kind)
    assert text[6:] not in clean_text(before + text + after)


def test_auto_is_json_without_a_terminal_and_levels_hold():
    """Machines read JSON lines; what is below the level is not there; amqtt's chatter is not either."""
    stream = io.StringIO()
    configure_logs(level="info", form="auto", stream=stream)
    structlog.get_logger("test").debug("hidden")
    structlog.get_logger("test").info("shown", number=1)
    logging.getLogger("amqtt.broker").info("chatter")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["number"], event["level"]) == ("shown", 1, "info")


@pytest.mark.parametrize("form", ["human", "json", "auto"])
@pytest.mark.parametrize(("level", "heard"), [("debug", True), ("info", True), ("warning", False), ("error", False)])
def test_what_is_said_to_be_heard_is_what_is_written(form: str, level: str, heard: bool):
    """A line that is left out because nobody would read it is one that would not have been written."""
    stream = io.StringIO()
    configure_logs(level=level, form=form, stream=stream)
    structlog.get_logger("authsvc.service").info("connect_refused")
    assert ("connect_refused" in stream.getvalue()) is heard
    assert is_heard(logging.getLogger("authsvc.service"), logging.INFO) is heard


def test_without_our_logging_every_line_is_left_to_structlog(capsys: pytest.CaptureFixture[str]):
    """In a process that configures nothing, such as a stock amqtt with the plugin, refusals are shown all the same."""
    structlog.reset_defaults()
    logging.getLogger().setLevel(logging.WARNING)
    assert is_heard(logging.getLogger("authsvc.service"), logging.INFO)
    structlog.get_logger("authsvc.service").info("connect_refused")
    assert "connect_refused" in capsys.readouterr().out
