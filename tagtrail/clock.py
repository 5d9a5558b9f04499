"""The clock of a process, which tests can move across processes (rule: time is passed in)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tagtrail.config import Settings


def make_clock(settings: Settings) -> Callable[[], datetime]:
    """A clock of aware times in UTC; in tests it is moved by the seconds in the file `test_clock`."""
    offset_file = settings.test_clock
    if offset_file is None:
        return utc_now
    return lambda: utc_now() + _offset(offset_file)


def utc_now() -> datetime:
    """The machine's time."""
    return datetime.now(UTC)


def _offset(path: Path) -> timedelta:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return timedelta()
    return timedelta(seconds=float(text.strip() or "0"))
