"""Answers every GET and HEAD except upload status: pull path, lists, history."""
