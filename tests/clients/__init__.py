"""Real registry clients, and the OCI conformance suite, against a running registry."""
