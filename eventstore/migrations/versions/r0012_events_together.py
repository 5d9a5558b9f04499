"""Functions alone: what is kept of commands is written once for a batch, a stream once for events in succession."""

revision = "0012"
down_revision = "0011"
functions = "9ad4de062d3d9e44"
serves_from = "0005"


def upgrade() -> None:
    """Change no table."""
