"""Facts as jsonb: derived and our own, so no bytes need keeping; folds by SQL read them many times as fast."""

from alembic import context, op
from sqlalchemy.dialects.postgresql import JSON, JSONB

from eventstore.migrations.functions import install

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Rewrite the column once and install today's functions."""
    app_role: str = context.config.attributes["app_role"]
    op.alter_column(
        "es_content",
        "facts",
        schema="log",
        existing_type=JSON(),
        type_=JSONB(),
        existing_nullable=False,
        postgresql_using="facts::jsonb",
    )
    install(op.get_bind(), app_role)
