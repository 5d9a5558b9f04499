"""The clock that parts of the program are given, and the file by which tests move it in all processes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from tagtrail.clock import make_clock
from tagtrail.config import resolve

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def test_without_an_offset_file_it_is_the_machines_time_in_utc() -> None:
    clock = make_clock(resolve({}, {}).settings)
    with freeze_time(NOON):
        assert clock() == NOON
    assert clock().tzinfo is UTC


def test_the_offset_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "offset"
    clock = make_clock(replace(resolve({}, {}).settings, test_clock=file))
    with freeze_time(NOON):
        assert clock() == NOON
        for text, seconds in (("3600\n", 3600.0), ("-1.5", -1.5), ("", 0.0)):
            file.write_text(text)
            assert clock() == NOON + timedelta(seconds=seconds)


def test_an_offset_that_is_no_number_is_an_error_not_zero(tmp_path: Path) -> None:
    file = tmp_path / "offset"
    file.write_text("tomorrow")
    with pytest.raises(ValueError, match="tomorrow"):
        make_clock(replace(resolve({}, {}).settings, test_clock=file))()
