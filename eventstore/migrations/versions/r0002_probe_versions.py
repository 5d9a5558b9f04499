"""Expected versions by index probe: the join of the first schema read all streams once there were many.

Functions changed, no table did: they are installed after the newest revision.
"""

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change no table."""
