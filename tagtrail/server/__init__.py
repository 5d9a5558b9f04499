"""The processes of a server: the supervisor, its children, the embedded Postgres, the watchdog."""
