"""The append-only log on Postgres: streams of events with gapless positions. See docs/architecture.md."""

from eventstore.codec import EVENT_COLUMNS, STREAM_COLUMNS, recorded_from_row, stream_state_from_row
from eventstore.store import Store

__all__ = ["EVENT_COLUMNS", "STREAM_COLUMNS", "Store", "recorded_from_row", "stream_state_from_row"]
