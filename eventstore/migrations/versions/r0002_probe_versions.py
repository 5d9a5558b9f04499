"""Expected versions by index probe: the join of the first schema read all streams once there were many."""

from alembic import context, op

from eventstore.migrations.functions import install

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Install today's functions."""
    app_role: str = context.config.attributes["app_role"]
    install(op.get_bind(), app_role)
