"""What an operator's bad year does to a registry."""
