"""Blobs by digest on the local disk, and the staging of uploads."""
