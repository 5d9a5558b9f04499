"""Facts as jsonb: derived and our own, so no bytes need keeping; folds by SQL read them many times as fast."""

from alembic import op
from sqlalchemy.dialects.postgresql import JSON, JSONB

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Rewrite the column once."""
    op.alter_column(
        "es_content",
        "facts",
        schema="log",
        existing_type=JSON(),
        type_=JSONB(),
        existing_nullable=False,
        postgresql_using="facts::jsonb",
    )
