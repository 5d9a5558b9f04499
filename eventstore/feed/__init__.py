"""The feed: the log carried through Kafka, which may be late, lose, repeat, reorder or come back empty."""
