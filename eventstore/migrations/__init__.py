"""The store's schema as Alembic revisions, run by `eventstore.migrating.migrate` alone."""
