"""How the server's memory allocator (granian's jemalloc) is set: what thousands of connections held comes back soon."""

# Read when the allocator is loaded, so it must be set before the process starts.
ALLOCATOR_VARIABLE = "_RJEM_MALLOC_CONF"
# Otherwise each of thousands of threads keeps blocks of answers for itself, and what is free stays where it is as long
# as nobody allocates.
ALLOCATOR_SETTINGS = "narenas:2,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true"
