"""Ours and other registries measured on one machine: `make bench`."""
