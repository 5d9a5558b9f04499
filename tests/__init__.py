"""The tests. A folder for each room, and folders for what concerns the whole registry, such as races and faults."""
