"""Builds are filled from the log, compared, swapped, verified, and removed when nobody needs them any more."""
