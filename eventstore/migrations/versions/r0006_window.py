"""A window of programs: which of them may serve the schema is told by `log.es_schema`, one row, not by one number.

From this revision on functions are installed once, after the newest revision, and a revision says for itself:
`functions`, a checksum of the functions that belong to it (a test compares the newest one), and `serves_from`, the
oldest revision that a program must know to go on serving beside it.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
functions = "2d649816117e0f64"
serves_from = "0005"


def upgrade() -> None:
    """Say to programs that know no window that theirs stands: this revision takes nothing from them."""
    op.execute("CREATE TABLE IF NOT EXISTS log.alembic_version (version_num varchar(32) PRIMARY KEY)")
    op.execute("DELETE FROM log.alembic_version")
    op.execute("INSERT INTO log.alembic_version VALUES ('0005')")
