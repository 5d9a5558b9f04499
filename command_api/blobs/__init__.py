"""Blobs of a repository: committed, mounted, unlinked; whether their files are whole."""
