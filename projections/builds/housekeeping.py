"""The projector's work beside folding: it fills read models that are new and removes builds that are over."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from domain.event import UnknownEvent
from projections.builds.pauses import Pauses
from projections.builds.rebuild import RebuildRefused, fold, rebuild
from projections.columns import SCHEMA
from projections.engine import build_tables
from projections.engine.build_tables import LIVE, build, checkpoint
from projections.engine.setup import STATEMENT_TIMEOUT_S, engine_for
from projections.model import FoldFailed, Model

EVERY_S = 60.0
# The pause is long because a fill that failed has read the whole log in vain.
RETRY_S = 10.0
RETRY_MAX_S = 600.0
# A model that is this many events behind is filled by SQL; below, the projector is as quick.
FILL_EVENTS = 10_000
UNASKED_S = 3600.0
DROP_LOCK_TIMEOUT_MS = 100

_UNASKED = """
UPDATE readmodel.build AS b
   SET keep_until = CASE
           WHEN EXISTS (SELECT FROM feed.process AS p WHERE b.model = ANY(p.shapes)) THEN NULL
           ELSE coalesce(b.keep_until, clock_timestamp() + %(keep)s * interval '1 second') END
 WHERE NOT b.model = ANY(%(ours)s) AND b.state = 'live'
"""
# A shape that nobody asks for goes with all its builds, for whatever reason they were kept.
_OVER = """
SELECT live.model, array_agg(b.id) FROM readmodel.build AS live JOIN readmodel.build AS b ON b.model = live.model
 WHERE live.state = 'live' AND live.keep_until < clock_timestamp() GROUP BY live.model
"""
_log = logging.getLogger(__name__)


class Housekeeping:
    """The housekeeping thread of one projector; those of several projectors do no harm to each other.

    A failure that it cannot handle, such as a lack of memory, is kept in `failure` and stops the projector. A thread
    that ended silently would look like one with nothing to do.
    """

    def __init__(
        self, database_url: str, models: Sequence[Model], stop: threading.Event, clock: Callable[[], float] = monotonic
    ) -> None:
        self._url = database_url
        self._models = models
        self._stop = stop
        self._pauses = Pauses(RETRY_S, RETRY_MAX_S, clock)
        self._soon = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> "Housekeeping":
        """Begin."""
        self._thread.start()
        return self

    def look_soon(self) -> None:
        """Look at once, because the database may have been replaced by one that has nothing but the log."""
        self._soon.set()

    def join(self) -> None:
        """Wait for its end, once `stop` is set; a rebuild that is under way is broken off with the process."""
        self._soon.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            self._keep()
        except Exception as problem:
            self.failure = problem
            self._stop.set()
            raise

    def _keep(self) -> None:
        while True:
            self._soon.wait(EVERY_S)
            self._soon.clear()
            if self._stop.is_set():
                return
            try:
                self._fill_new()
                remove_old(self._url, self._models)
            except DBAPIError as problem:
                _log.warning("housekeeping waits for the database: %s", problem.orig)

    def _fill_new(self) -> None:
        """Fill new models. Several, as after an upgrade or a restore, are filled from one reading of the log."""
        new = self._new_models()
        if len(new) > 1:
            # If that fails, they are filled one by one.
            self._try("together", lambda: fold(self._url, new))
        for model in new:
            if not self._stop.is_set():
                self._try(model.name, partial(self._fill, model))

    def _fill(self, model: Model) -> None:
        done = rebuild(self._url, model)
        _log.warning("read model %s was filled from the log: %d rows", model.name, done.rows)

    def _try(self, what: str, work: Callable[[], None]) -> None:
        """Fill the models, unless that has failed lately. So a model that cannot be filled holds up no other."""
        if not self._pauses.over(what):
            return
        try:
            work()
        except (RebuildRefused, FoldFailed, UnknownEvent, DataError, IntegrityError) as problem:
            # Another projector may be filling it, or the fold cannot take an event.
            pause_s = self._pauses.failed(what)
            _log.warning("read models (%s) were not filled, tried again in %g s: %s", what, pause_s, problem)
        except DBAPIError:
            self._pauses.failed(what)
            raise
        else:
            self._pauses.succeeded(what)

    def _new_models(self) -> list[Model]:
        """The models whose live build is far behind and has done less than half of the log."""
        with engine_for(self._url, statement_timeout_s=STATEMENT_TIMEOUT_S).connect() as connection:
            live = {each.id: each.model for each in build_tables.listed(connection, self._models, [LIVE])}
            furthest = connection.execute(
                sa.select(checkpoint.c.build, sa.func.max(checkpoint.c.position))
                .where(checkpoint.c.build.in_(live))
                .group_by(checkpoint.c.build)
            )
            reached = {row[0]: int(row[1]) for row in furthest}
            head = connection.exec_driver_sql(
                "SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0"
            ).scalar_one()
        return [
            model
            for each, model in live.items()
            if head - reached.get(each, 0) > FILL_EVENTS and 2 * reached.get(each, 0) < head
        ]


def remove_old(database_url: str, models: Sequence[Model]) -> None:
    """Drop retired builds whose time is over, and shapes that no process has asked for during an hour."""
    with engine_for(database_url, statement_timeout_s=STATEMENT_TIMEOUT_S).connect() as connection:
        with connection.begin():
            connection.exec_driver_sql(_UNASKED, {"keep": UNASKED_S, "ours": [each.id for each in models]})
            retired = build_tables.expired(connection)
            shapes = [(row[0], list(row[1])) for row in connection.exec_driver_sql(_OVER)]
        for each in retired:
            _drop(connection, each, [each], None)
        for shape, ids in shapes:
            _drop(connection, shape, ids, shape)


def _drop(connection: sa.Connection, what: str, build_ids: Sequence[str], shape: str | None) -> None:
    """Drop builds, and with `shape` its views, if their time is still over and nobody uses them this moment."""
    try:
        with connection.begin():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {DROP_LOCK_TIMEOUT_MS}")
            still = connection.execute(
                sa.select(build.c.id).where(build.c.id.in_(build_ids), build.c.keep_until < sa.func.clock_timestamp())
            ).first()
            if still is None:
                return
            if shape is not None:
                for view in (f"{shape}_parked", f"{shape}_checkpoint", shape):
                    connection.exec_driver_sql(f"DROP VIEW IF EXISTS {SCHEMA}.{view}")
            for build_id in build_ids:
                build_tables.drop(connection, build_id)
            _log.info("%s is no longer kept", what)
    except OperationalError as problem:
        _log.info("%s is in use, it is removed later: %s", what, problem.orig)
