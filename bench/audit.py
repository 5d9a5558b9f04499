"""Measures pages of a long trail of changes, for each question that `tagtrail history` asks.

    python bench/audit.py [ROWS]      default 10,000,000; some 350 bytes of disk a row

SQL makes ROWS changes of 20,000 repositories by 500 people in three years, in the read model's own build, with its key
and indexes. The largest repository has a seventh of them, others have less and less; the same holds for people. A push
is six changes, and one change in a hundred is a deletion. The log has only each thousandth event, because only times
are looked up there.

Prints for the first, middle and last pages of each question the median and the worst time of 20 pages and how many
changes they show, and the plan of a middle page. The goal is 50 ms for every page. Where no index has all that is asked
for together, a page may show fewer changes than it could, or none, and the next page goes on.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg

from eventstore.partition import DEFAULT_PARTITIONS, partition_of
from eventstore.statement import Statement
from eventstore.store import Store
from projections.engine import build_tables
from projections.engine.build_tables import FILLING, LIVE
from projections.engine.setup import engine_for, ensure_tables
from projections.models import audit
from projections.models.audit import Wanted
from projections.reader import Reader
from tests.postgres import Database, new_database, throwaway

ROWS = 10_000_000
PAGE = 100
PAGES = 20
GOAL_MS = 50.0
START, YEARS = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=3 * 365)
_LOG = """
INSERT INTO log.es_event (position, recorded_at, version, log_id, partition, schema_version, sets_ref, stream, key,
                          type, actor, request_id, data)
SELECT n, %(start)s::timestamptz + n * %(step)s, 1, 0, 0, 1, false, 's' || n, 'k', 'TagMoved', 'a', 'r', '{}'
  FROM generate_series(1000, %(rows)s, 1000) AS n
"""
# A push is a blob or two, links, a manifest and a tag; cubes of a random number make few large and many small.
_ROWS = """
INSERT INTO {table}
SELECT 'team' || repository %% 97 || '/service-' || repository, n, %(start)s::timestamptz + n * %(step)s,
       'person-' || floor(500 * random() ^ 3), what,
       CASE WHEN what LIKE 'tag-%%' THEN CASE WHEN random() < 0.4 THEN 'latest' ELSE 'v1.' || n %% 300 END END,
       CASE WHEN what IN ('tag-moved', 'tag-deleted', 'manifest-deleted') THEN digest END,
       CASE WHEN what NOT LIKE '%%-deleted' THEN digest END, md5(n::text)
  FROM (SELECT n, 'sha256:' || md5(n::text) || md5((-n)::text) AS digest,
               floor(20000 * random() ^ 5)::int AS repository,
               CASE WHEN chance < 0.60 THEN 'blob-uploaded' WHEN chance < 0.64 THEN 'blob-mounted'
                    WHEN chance < 0.80 THEN 'manifest-pushed' WHEN chance < 0.82 THEN 'manifest-repeated'
                    WHEN chance < 0.90 THEN 'tag-moved' WHEN chance < 0.98 THEN 'tag-created'
                    WHEN chance < 0.99 THEN 'tag-repeated' WHEN chance < 0.996 THEN 'tag-deleted'
                    WHEN chance < 0.999 THEN 'manifest-deleted' ELSE 'blob-unlinked' END AS what
          FROM (SELECT n, random() AS chance FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n) AS c) AS r
"""
_SLICE = 1_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the position before which its page begins."""

    wanted: Wanted
    before: int


def populate(database: Database, rows: int) -> None:
    """Write events with times into the log, and the rows of the trail into a build that is then live."""
    values = {"start": START, "step": YEARS / rows, "rows": rows}
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(_LOG, values)
        connection.execute("VACUUM ANALYZE log.es_event")
    ensure_tables(database.app_url)
    with engine_for(database.app_url).connect() as connection:
        made = build_tables.create(connection, audit.model, FILLING, rows)
        connection.commit()
        query = _ROWS.format(table=made.table)
        for first in range(1, rows + 1, _SLICE):
            last = min(first + _SLICE - 1, rows)
            connection.exec_driver_sql(query, {**values, "first": first, "last": last})
            connection.commit()
        build_tables.mark(connection, build_tables.live(connection, audit.model), build_tables.RETIRED, 0)
        build_tables.show(connection, build_tables.finish(connection, made, LIVE))
        connection.commit()
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(f"VACUUM ANALYZE {made.table}")
        sizes = f"SELECT pg_table_size('{made.table}'), pg_indexes_size('{made.table}')"
        table, indexes = connection.execute(sizes).fetchone() or (0, 0)
    print(f"{rows:,} rows: {table / rows:.0f} bytes a row, {indexes / rows:.0f} of indexes", flush=True)


def questions() -> dict[str, Wanted]:
    """The questions that are measured, each under the name that is printed."""
    large, small = "team0/service-0", "team45/service-19930"
    month = Wanted(since=START + YEARS / 2, until=START + YEARS / 2 + timedelta(days=30))
    return {
        "all": Wanted(),
        "of a month": month,
        "of a large repository": Wanted(large),
        "of a small repository": Wanted(small),
        "of a large repository, of a month": replace(month, repository=large),
        "of a tag": Wanted(large, "latest"),
        "by an actor of many": Wanted(actor="person-0"),
        "by an actor of few": Wanted(actor="person-499"),
        "of a frequent kind": Wanted(what=("blob-uploaded",)),
        "of two rare kinds": Wanted(what=("tag-deleted", "blob-unlinked")),
        "of a rare kind, of a month": replace(month, what=("blob-unlinked",)),
        "rare kind by an actor": Wanted(actor="person-499", what=("blob-unlinked",)),
        "rare kind of a repository": Wanted(large, what=("blob-unlinked",)),
        "by an actor of a repository": Wanted(large, actor="person-499"),
    }


def pages(wanted: Wanted, rows: int) -> Iterator[tuple[str, list[Asked]]]:
    """The pages to ask for, PAGES of each place (first, middle, last), each at another position of the log."""
    share = rows // (3 * PAGES)
    for name, start in (("first", rows), ("middle", rows // 2 + PAGES * share // 2), ("last", PAGES * share // 10)):
        step = share if name != "last" else share // 10
        yield name, [Asked(wanted, max(2, start - step * each + 1)) for each in range(PAGES)]


class NotingReader(Reader):
    """A reader that remembers its last question as the database got it, so that its plan can be shown."""

    last: tuple[str, dict[str, Any]]

    def one(self, query: str | Statement, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """Remember the question and its parameters, then ask it as `Reader` does."""
        text = query.query if isinstance(query, Statement) else query
        key = parameters.get("key")
        place = 0 if key is None else partition_of(key, DEFAULT_PARTITIONS)
        self.last = text, {**parameters, "tail": True, "partition": place}
        return super().one(query, parameters)


def measure(reader: NotingReader, database: Database, name: str, wanted: Wanted, rows: int) -> float:
    """Print how long the pages of a question take, and the plan of a middle one; answers the worst time in ms."""
    worst = 0.0
    plan: list[str] = []
    for place, asked in pages(wanted, rows):
        took, shown = [], []
        for each in asked:
            began = time.perf_counter()
            page = audit.history(reader, each.wanted, before=each.before, limit=PAGE)
            took.append(1000 * (time.perf_counter() - began))
            shown.append(len(page.rows))
        worst = max(worst, *took)
        print(
            f"{name:34} {place:7} median {statistics.median(took):7.2f} ms   worst {max(took):7.2f} ms"
            f"   rows a page {statistics.mean(shown):5.1f}",
            flush=True,
        )
        if place == "middle":
            query, parameters = reader.last
            with psycopg.connect(database.app_url) as connection:
                connection.execute("SET enable_seqscan = off")
                plan = [row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {query}", parameters)]
    print("\n".join(f"    {line}" for line in plan), flush=True)
    return worst


def main(rows: int) -> None:
    """Make a trail of so many rows, measure each question, judge the worst page."""
    with throwaway(shared_buffers="96MB", max_wal_size="4GB") as server:
        database = new_database(server)
        began = time.perf_counter()
        populate(database, rows)
        print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
        store = Store(database.app_url, pool_size=1)
        reader = NotingReader(store.reader)
        try:
            worst = {name: measure(reader, database, name, each, rows) for name, each in questions().items()}
        finally:
            store.close()
        name = max(worst, key=lambda each: worst[each])
        reached = "reached" if worst[name] < GOAL_MS else "MISSED"
        print(f"goal: every page below {GOAL_MS:g} ms: {reached}; the worst, {name}: {worst[name]:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
