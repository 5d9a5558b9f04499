"""Logs have one line for each thing in both forms, nothing that a request could forge, and no secrets in traces."""

import errno
import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import structlog

from domain.names import UploadId
from domain.session_id import SessionId
from tagtrail import logs
from tagtrail.config import resolve


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore the logging that was set up before the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def configure(log_format: str, level: str = "info") -> None:
    """Log as a process of a server would."""
    logs.configure(replace(resolve({}, {}).settings, log_format=log_format, log_level=level), "api")


def access(path: str) -> None:
    """Log a request for a path."""
    logs.access_line(
        method="GET", path=path, status=200, duration_s=0.25, bytes_sent=7, request_id="r1", address="127.0.0.1"
    )


def test_json_has_every_field_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    access("/v2/")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("pid") > 0
    assert line == {
        "level": "info",
        "event": "request",
        "process": "api",
        "method": "GET",
        "path": "/v2/",
        "status": 200,
        "duration_ms": 250.0,
        "bytes": 7,
        "request_id": "r1",
        "address": "127.0.0.1",
    }


def test_a_line_does_not_tell_how_to_go_on_with_an_upload(capsys: pytest.CaptureFixture[str]) -> None:
    """The line has the random part of the id alone: it names the upload's stream and file, but opens nothing."""
    configure("json")
    upload = UploadId(16 * "5a")
    sealed = SessionId(1, datetime(2026, 1, 1, tzinfo=UTC), None, upload).sealed(b"secret", "you/app", "")
    access(f"/v2/you/app/blobs/uploads/{sealed}")
    path = json.loads(capsys.readouterr().err)["path"]
    assert path == f"/v2/you/app/blobs/uploads/{sealed[:-43]}..."
    assert upload in path


def test_a_path_cannot_write_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    access("/v2/x\n2026-01-01 error forged status=500\x1b[31m")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "\x1b" not in shown
    assert "request_id=r1" in shown


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_failed_request_shows_its_trace_and_id_but_no_local_variables(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(log_format)
    secret = "-".join(["very", "secret"])
    try:
        raise ValueError(len(secret))
    except ValueError as problem:
        logs.error_with_trace("r2", problem)
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "r2" in shown
    assert "very-secret" not in shown


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_messages_below_the_level_are_not_logged(level: str, heard: int, capsys: pytest.CaptureFixture[str]) -> None:
    configure("text", level)
    logger = logs.get_logger()
    for each in ("debug", "info", "warning", "error"):
        getattr(logger, each)("said")
    assert len(capsys.readouterr().err.splitlines()) == heard


def test_libraries_warn_through_the_same_form_and_do_not_narrate(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    logging.getLogger("some.library").info("I opened a file")
    logging.getLogger("some.library").warning("it is %s", "full")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "it is full"


def test_a_line_that_cannot_be_written_fails_nothing_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under the log file must not stop the registry; the first line after it tells of those lost."""

    class Full(io.StringIO):
        is_free = False

        def write(self, text: str, /) -> int:
            if not self.is_free:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    stream = Full()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("json")
    access("/v2/one")
    access("/v2/two")
    stream.is_free = True
    access("/v2/three")
    access("/v2/four")
    third, fourth = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (third["path"], third["lines_lost"]) == ("/v2/three", 2)
    assert "lines_lost" not in fourth


def test_a_stream_that_was_closed_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream of logs may be gone while requests are still served."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("json")
    stream.close()
    access("/v2/one")
