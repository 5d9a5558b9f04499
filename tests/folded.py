"""Waits until the read models are level with the log."""

import psycopg

from projections.all_models import MODELS
from projections.builds import admin
from tests.waiting import eventually

TIMEOUT_S = 60.0
# No read model folds events of upload sessions.
_FOLDED = (
    "SELECT NOT EXISTS (SELECT FROM readmodel.checkpoint AS c JOIN readmodel.build AS b ON b.id = c.build"
    " JOIN log.es_event AS e ON e.log_id = 0 AND e.partition = c.partition AND e.position > c.position"
    " WHERE b.state = 'live' AND b.model = ANY(%s) AND e.position <= %s AND NOT starts_with(e.stream, 'upload-'))"
)


def wait_folded(database_url: str, position: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until every live build has folded all events up to a position, by default up to the present head of the log.

    If they have not in time, it fails and tells where each of them stands.
    """
    upto = admin.status(database_url).head if position is None else position
    models = [each.id for each in MODELS]
    with psycopg.connect(database_url, autocommit=True) as connection:
        eventually(
            lambda: connection.execute(_FOLDED, (models, upto)).fetchone() == (True,),
            timeout_s,
            lambda: admin.status(database_url),
        )
