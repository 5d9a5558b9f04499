"""Manifests and tags: pushed, moved, deleted."""
