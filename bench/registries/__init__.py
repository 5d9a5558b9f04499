"""Measures our registry and others on one machine: `make bench`."""
