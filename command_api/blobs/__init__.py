"""Blobs of a repository: whether their bytes are whole, and how it gives them up."""
