"""A window of programs: which of them may serve the schema is told by `log.es_schema`, one row, not by one number.

From this revision on functions are installed once, after the newest revision, and a revision says for itself:
`functions`, a checksum of the functions that belong to it (a test compares the newest one), and `serves_from`, the
oldest revision that a program must know to go on serving beside it.

Processes say what they handle (`feed.process.features`) and which revision they know; `log.es_feature` lists what is in
use. The event types of this time are in use: programs from before, which say nothing, know them all.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

revision = "0006"
down_revision = "0005"
functions = "008f99d933bca7dd"
serves_from = "0005"


NAME = sa.Text(collation="C")
IN_USE = (
    *("BlobCommitted", "BlobLinked", "BlobUnlinked", "ManifestDeleted", "ManifestPushed", "RepositoryCreated"),
    *("TagDeleted", "TagMoved", "ChunkAppended", "UploadCancelled", "UploadCommitted", "UploadExpired"),
    "UploadStarted",
)


FIRST_LAYOUT = """
DO $$
DECLARE
    name text;
BEGIN
    IF EXISTS (SELECT FROM information_schema.columns
                WHERE table_schema = 'readmodel' AND table_name = 'checkpoint' AND column_name = 'model') THEN
        FOR name IN SELECT c.relname FROM pg_class AS c
                     WHERE c.relnamespace = 'readmodel'::regnamespace AND c.relkind = 'r' LOOP
            EXECUTE format('DROP TABLE readmodel.%I', name);
        END LOOP;
    END IF;
END $$
"""


def upgrade() -> None:
    """Make the list of features, and say to programs that know no window that theirs stands."""
    features = op.create_table(
        "es_feature",
        sa.Column("name", NAME, primary_key=True),
        # Of processes that must have it.
        sa.Column("kinds", ARRAY(NAME), nullable=False),
        sa.Column("used_from", TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        schema="log",
    )
    op.bulk_insert(features, [{"name": f"{each}.1", "kinds": ["api", "projector"]} for each in IN_USE])
    op.add_column("process", sa.Column("features", ARRAY(sa.Text), nullable=False, server_default="{}"), schema="feed")
    op.add_column("process", sa.Column("knows", sa.Text, nullable=False, server_default="0005"), schema="feed")
    # Programs from before write it; it goes when they do.
    op.alter_column("process", "event_types", server_default="{}", schema="feed")
    op.execute("CREATE TABLE IF NOT EXISTS log.alembic_version (version_num varchar(32) PRIMARY KEY)")
    op.execute("DELETE FROM log.alembic_version")
    op.execute("INSERT INTO log.alembic_version VALUES ('0005')")
    # Read models up to the second revision were tables, named as the views of builds are now: they are filled anew.
    role = op.get_bind().dialect.identifier_preparer.quote(context.config.attributes["app_role"])
    op.execute(f"SET LOCAL ROLE {role}")
    op.execute(FIRST_LAYOUT)
    op.execute("RESET ROLE")
