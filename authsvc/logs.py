"""Structured logs in which no secret can appear: human on a terminal, JSON otherwise.

One chain serves structlog and the standard library (uvicorn, amqtt), and its last step before rendering cleans every
value: whatever looks like a token is cut to its kind, and control characters are escaped so that no client can forge
a line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from authsvc.core.tokens import redacted

NOISY = ("amqtt", "transitions", "aiosqlite", "httpx", "httpcore", "asyncio")  # they log per packet or statement
_MAX_TEXT = 2_000  # characters of one value: a log line is no place for a payload
_MAX_DEPTH = 4

# C0, DEL and C1, and the separators and overrides that some terminals and log viewers take for line ends or reorder.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CONTROL |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def configure_logs(*, level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's logging through one chain to `stream` (default stderr).

    `form` is ``human``, ``json`` or ``auto`` (human on a terminal). Anything that looks like one of our tokens is
    replaced and control characters are escaped in every value, whoever logged it.
    """
    stream = stream or sys.stderr
    human = form == "human" or (form == "auto" and stream.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if human
        else structlog.processors.JSONRenderer(ensure_ascii=True, default=repr)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                clean,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(least)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(least, logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def is_heard(logger: logging.Logger, level: int) -> bool:
    """Return whether a line of this level is written; binding one that nobody reads costs a part of a connection.

    Where structlog does not write through the standard library, as in a process that configures its own logs, the
    levels of that say nothing: the line is for structlog to judge.
    """
    factory = structlog.get_config()["logger_factory"]
    return not isinstance(factory, structlog.stdlib.LoggerFactory) or logger.isEnabledFor(level)


def clean(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the event with every key and value clean, at any depth; a structlog processor."""
    return {clean_text(str(key)): _clean(value, in_traceback=key == "exception") for key, value in event.items()}


def clean_text(text: str, *, lines: bool = False) -> str:
    """Return `text` without what looks like a token, control characters escaped (`lines`: newlines stay, indented)."""
    text = redacted(text)
    if len(text) > _MAX_TEXT and not lines:
        text = text[:_MAX_TEXT] + "…"
    if text.isascii() and text.isprintable():  # as nearly all is: nothing to escape
        return text
    if lines:
        return "\n    ".join(line.translate(_CONTROL) for line in text.split("\n"))
    return text.translate(_CONTROL).encode("utf-8", "backslashreplace").decode()


def _clean(value: object, *, in_traceback: bool = False, depth: int = 0) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return clean_text(value, lines=in_traceback)
    if isinstance(value, bytes):
        return clean_text(value.decode("latin-1"))
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {clean_text(str(key)): _clean(part, depth=depth + 1) for key, part in value.items()}
        # a tuple with names is a record: it says itself what of it may be shown
        if isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_fields"):
            return [_clean(part, depth=depth + 1) for part in value]
    return clean_text(str(value))
