"""Logs of every process by structlog, as text or JSON, on standard error: one line a request, and no secrets."""

import json
import logging
import os
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import structlog

from domain.session_id import without_seals
from tagtrail.config import Settings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(settings: Settings, process_name: str) -> None:
    """Set up the logs of this process; call it once, first, and again after a fork."""
    global _logger
    level = _LEVELS[settings.log_level]
    stream = _Lossy(sys.stderr)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _stamp(process_name),
        # Plain traces, because those of rich print local variables, and with them the database's password.
        structlog.processors.format_exc_info,
    ]
    last: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else _as_text(sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, stream.tell, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", stream)),
        cache_logger_on_first_use=False,
    )
    _logger = structlog.get_logger().bind()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries log too much at level info; an operator needs only their warnings.
    root.setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    # kafka-python logs each try to reach a broker; the relay and the feed log once that it is away.
    logging.getLogger("kafka").setLevel(level if level == logging.DEBUG else logging.CRITICAL)
    logging.captureWarnings(True)


class _Lossy:
    """A stream that drops lines which cannot be written, because the disk or the pipe of logs may be full or gone.

    No request may fail for that. Once lines can be written again, one of them says how many were lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = 0

    def write(self, line: str) -> None:
        """Write and flush one line, or drop it."""
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            # ValueError: the stream was closed.
            self._lost += 1
        else:
            self._lost = 0

    def flush(self) -> None:
        """Do nothing, because no line is held back."""

    def tell(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Add to the event the number of lines lost before it."""
        return {**event, "lines_lost": self._lost} if self._lost else event


def _stamp(process_name: str) -> structlog.types.Processor:
    def stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        now = datetime.now(UTC)
        return {
            "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
            "level": event.pop("level", "info"),
            "event": event.pop("event", ""),
            "process": process_name,
            "pid": os.getpid(),
            **event,
        }

    return stamp


_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN = re.compile(r"[!#-<>-~]+")


def _as_text(coloured: bool) -> structlog.types.Processor:
    """A line for people: time, level, event, then name=value with odd values quoted."""

    def render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        stamp, level, what = event.pop("timestamp"), event.pop("level"), event.pop("event")
        trace = event.pop("exception", None)
        shown = f"{_COLOURS.get(level, '')}{level:<7}\x1b[0m" if coloured else f"{level:<7}"
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in event.items())
        return f"{stamp} {shown} {what}{pairs}" + (f"\n{trace}" if trace else "")

    return render


def _quoted(value: object) -> str:
    # A path may hold newlines; unquoted, a request could write log lines of its own.
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


_logger: Any = structlog.get_logger()


def get_logger() -> Any:
    """The structured logger of this process."""
    return _logger


def access_line(
    *,
    method: str,
    path: str,
    status: int,
    duration_s: float,
    bytes_sent: int,
    request_id: str,
    address: str,
) -> None:
    """Log one served request. The query is left out, because it may hold secrets. The seal of an upload's id is left
    out, because a reader of the log could go on with the upload.
    """
    _logger.info(
        "request",
        method=method,
        path=without_seals(path)[:1000],
        status=status,
        duration_ms=round(duration_s * 1000, 2),
        bytes=bytes_sent,
        request_id=request_id,
        address=address,
    )


def error_with_trace(request_id: str, exc: BaseException) -> None:
    """Log why a request failed with a 5xx, with the trace and the id that the answer carries."""
    _logger.error("request failed", request_id=request_id, error=str(exc), exc_info=exc)


def refused(request_id: str, exc: BaseException) -> None:
    """Log why a request was answered 503, without a trace: the cause concerns all requests, traces would bury it."""
    _logger.error("request refused", request_id=request_id, error=str(exc))
