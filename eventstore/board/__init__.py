"""The change board: answers kept in memory that are never stale (rule: begun before done). `cells` has the proof."""
