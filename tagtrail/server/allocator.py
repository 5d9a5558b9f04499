"""Memory of workers: it comes back soon after thousands of connections, and what was loaded early is shared."""

import ctypes
import gc

# granian's jemalloc reads them when it is loaded, so they must be set before the process starts.
ALLOCATOR_VARIABLE = "_RJEM_MALLOC_CONF"
# Otherwise each of thousands of threads keeps blocks of answers for itself, and free memory is not given back while
# nobody allocates.
ALLOCATOR_SETTINGS = "narenas:2,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true"


def give_back() -> None:
    """Give free memory of the C library back to the system, which takes milliseconds. Only glibc needs it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def freeze_for_workers() -> None:
    """Keep the collector of garbage from the objects that this process has, for those that are forked from it.

    A collection writes to every object that it looks at. The first one in a forked process would make a copy of nearly
    all that was loaded before.
    """
    gc.collect()
    gc.freeze()
