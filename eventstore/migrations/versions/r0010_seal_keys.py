"""Secrets by which the processes of a log seal ids that they give out, and know them again.

The database makes the first one, so that there is always one. Only the application's role may read them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import BYTEA, TIMESTAMP

from eventstore.migrations.functions import SCHEMA

revision = "0010"
down_revision = "0009"
functions = "66b39837dbf6c14b"
serves_from = "0005"

# As es_rotate_seal_keys makes them: three random UUIDs have 366 bits by chance.
FIRST_KEY = """
INSERT INTO log.es_seal_key (secret, made_at)
SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), now()
"""


def upgrade() -> None:
    """Create the table, with a first key."""
    op.create_table(
        "es_seal_key",
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("secret", BYTEA, nullable=False),
        sa.Column("made_at", TIMESTAMP(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    # Whatever the database's default privileges say.
    op.execute(f"REVOKE ALL ON {SCHEMA}.es_seal_key FROM PUBLIC")
    op.execute(FIRST_KEY)
