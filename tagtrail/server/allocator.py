"""Memory that thousands of connections held comes back soon: settings of both allocators of a worker."""

import ctypes

# granian's jemalloc reads them when it is loaded, so they must be set before the process starts.
ALLOCATOR_VARIABLE = "_RJEM_MALLOC_CONF"
# Otherwise each of thousands of threads keeps blocks of answers for itself, and what is free stays where it is as long
# as nobody allocates.
ALLOCATOR_SETTINGS = "narenas:2,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true"


def give_back() -> None:
    """Give what the C library has free back to the system; it takes milliseconds. Others than glibc do it alone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
