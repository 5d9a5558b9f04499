"""Running tagtrail: the supervisor, its children, the embedded Postgres, the watchdog."""
