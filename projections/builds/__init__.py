"""Builds are filled from the log, compared, swapped, verified and removed when they are over."""
