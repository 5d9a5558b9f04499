"""Every GET and HEAD but upload status: pull path, lists, history."""
