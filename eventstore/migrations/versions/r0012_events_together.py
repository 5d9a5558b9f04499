"""Functions alone: what is kept of commands is written once for a batch, a stream once for events in succession."""

revision = "0012"
down_revision = "0011"
functions = "89b9273109cd892c"
serves_from = "0005"


def upgrade() -> None:
    """Change no table."""
