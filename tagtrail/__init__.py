"""Configuration, wiring, the supervisor and the command line."""
