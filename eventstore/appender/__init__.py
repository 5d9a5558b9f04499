"""One process of a server that appends for all of its other processes (rule: one appender)."""
