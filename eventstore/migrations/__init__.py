"""The store's schema as Alembic revisions, run by `eventstore.schema.migrate` alone."""
