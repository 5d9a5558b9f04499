"""The feed: the log carried through Kafka. Kafka may be late, lose, repeat, reorder or come back empty (S20)."""
