"""Dates and times as people and programs write them."""

from datetime import UTC, datetime


def parse_moment(text: str) -> datetime:
    """The moment that a date or time of ISO 8601 names, in UTC unless it says otherwise; a date is its first moment.

    Raises ValueError, whose text tells what is expected.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as problem:
        raise ValueError("must be a date or a time, for example 2026-01-31 or 2026-01-31T12:00Z") from problem
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
