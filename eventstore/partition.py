"""The partition of a key, fixed for the life of a log: crc32(key) % partitions (rule: fixed partitions)."""

from zlib import crc32

DEFAULT_PARTITIONS = 16


def partition_of(key: str, partitions: int = DEFAULT_PARTITIONS) -> int:
    """The partition, 0 to `partitions` - 1, that events with this key belong to."""
    return crc32(key.encode()) % partitions
