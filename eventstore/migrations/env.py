"""Runs the revisions on the connection that `eventstore.migrating.migrate` hands over."""

from alembic import context

from eventstore.migrations.functions import SCHEMA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    version_table_schema=SCHEMA,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
