"""The change board: answers kept in memory that are never stale (S16-S18). `cells` has the proof."""
