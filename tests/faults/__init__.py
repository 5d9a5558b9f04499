"""Faults injected into a running registry, and what it must have kept afterwards."""
