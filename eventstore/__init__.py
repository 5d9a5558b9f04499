"""The append-only log: streams of events with gapless positions, on Postgres. See docs/architecture.md."""
