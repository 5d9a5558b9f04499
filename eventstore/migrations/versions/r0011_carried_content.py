"""Appends carry small content along; an index that nobody asks is gone.

The release before goes on beside it: it stores content before each append, which is what large content still needs.
"""

from alembic import op

from eventstore.migrations.functions import SCHEMA

revision = "0011"
down_revision = "0010"
functions = "29b90590fd87dc60"
serves_from = "0005"


def upgrade() -> None:
    """Drop the index by time of the clients' addresses: they are found and erased by position."""
    op.execute(f"DROP INDEX IF EXISTS {SCHEMA}.es_client_recorded_at")
