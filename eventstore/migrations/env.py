"""Runs the revisions on the connection that `eventstore.schema.migrate` hands over."""

from alembic import context

from eventstore.migrations.functions import SCHEMA

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=SCHEMA,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
