"""Blobs of a repository: they are committed, mounted and unlinked, and their files are looked at."""
