"""Functions alone: a set of streams is judged in a log that has a name, and content is swept by bytes.

The release before goes on beside it: it does not say in which log it judged, and asks for nothing that is gone.
"""

from alembic import op

from eventstore.migrations.functions import SCHEMA

revision = "0009"
down_revision = "0008"
functions = "c8c8182b83c2a626"
serves_from = "0005"


def upgrade() -> None:
    """Drop what is made again with one more column or parameter."""
    op.execute(f"DROP FUNCTION IF EXISTS {SCHEMA}.es_judge_set(smallint, text)")
    # Nobody calls it but the functions that are made together with it.
    op.execute(f"DROP FUNCTION IF EXISTS {SCHEMA}.es_set_holds(smallint, text, text, bigint)")
