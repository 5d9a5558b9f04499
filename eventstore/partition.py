"""The partition of a key, fixed for the life of a log: crc32(key) % partitions (rule: fixed partitions)."""

from zlib import crc32

# The number for a log that is made. The number of a log that exists stands in its own row: a reader
# that took another one would look at the checkpoint of another partition, and miss events of the key.
DEFAULT_PARTITIONS = 16
PARTITIONS = "SELECT l.partitions FROM log.es_log AS l WHERE l.log_id = 0"


def partition_of(key: str, partitions: int) -> int:
    """The partition, 0 to `partitions` - 1, that events with this key belong to."""
    return crc32(key.encode()) % partitions
