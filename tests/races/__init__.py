"""Races: many clients, many workers, deletions against pushes, and a model that every answer must equal."""
