"""Requests, bytes and texts at random, and what must hold of every answer to them."""
