"""The catalog: all known repositories, each with the number of its manifests."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from domain.manifest import ManifestDeleted, ManifestPushed
from domain.repository import RepositoryCreated
from domain.streams import PRESENT
from projections.columns import Name, table_of
from projections.model import Happened, Key, Model, Rows
from projections.reader import Reader, log_tail


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """A repository; it is listed while it has a manifest."""

    repository: Name
    created_at: datetime
    manifests: int


table = table_of(CatalogRow, "catalog_s1", ("repository",))
sa.Index("catalog_s1_listed", table.c.repository, postgresql_where=table.c.manifests > 0)


def _touched(happened: Happened) -> Iterable[Key]:
    match happened.event:
        case RepositoryCreated(repository) | ManifestPushed(repository) | ManifestDeleted(repository):
            return ((repository,),)
    return ()


def _fold(rows: Rows, happened: Happened) -> None:
    match happened.event:
        case RepositoryCreated(repository):
            rows[repository,] = CatalogRow(repository, happened.recorded_at, 0)
        case ManifestPushed(repository) if happened.prev_ref != PRESENT:
            _count(rows, repository, 1)
        case ManifestDeleted(repository) if happened.prev_ref == PRESENT:
            _count(rows, repository, -1)


def _count(rows: Rows, repository: str, change: int) -> None:
    row: CatalogRow = rows[repository,]
    rows[repository,] = replace(row, manifests=row.manifests + change)


_SET_FOLD = """
SELECT e.key, e.recorded_at,
       (SELECT count(*) FROM log.es_event AS m
         WHERE m.log_id = 0 AND m.key = e.key AND m.type = 'ManifestPushed'
           AND m.position <= (%(limits)s::bigint[])[m.partition + 1]
           AND NOT EXISTS (SELECT FROM <superseded> AS s WHERE s.position = m.position))
  FROM range_event AS e
 WHERE e.type = 'RepositoryCreated'
"""
model = Model(
    "catalog",
    1,
    table,
    CatalogRow,
    frozenset({RepositoryCreated.TYPE, ManifestPushed.TYPE, ManifestDeleted.TYPE}),
    _touched,
    _fold,
    _SET_FOLD,
)

# The database sums up the manifests that the tail adds to a repository, because the tail may be all that was ever
# pushed.
_PAGE = f"""
WITH changed AS MATERIALIZED (
     SELECT t.key, coalesce((SELECT c.manifests FROM readmodel.catalog_s1 AS c WHERE c.repository = t.key), 0) + sum(
                CASE WHEN t.type = 'ManifestPushed' AND t.prev_ref IS DISTINCT FROM '{PRESENT}' THEN 1
                     WHEN t.type = 'ManifestDeleted' AND t.prev_ref = '{PRESENT}' THEN -1 ELSE 0 END) AS manifests
       FROM (
{log_tail("catalog_s1", "e.type IN ('ManifestPushed', 'ManifestDeleted') AND e.key > %(after)s")}
       ) AS t GROUP BY t.key
)
SELECT array_agg(p.repository) FROM (
    (SELECT c.repository FROM readmodel.catalog_s1 AS c
      WHERE c.manifests > 0 AND c.repository > %(after)s AND c.repository NOT IN (SELECT n.key FROM changed AS n)
      ORDER BY c.repository LIMIT %(limit)s + 1)
    UNION ALL
    (SELECT n.key FROM changed AS n WHERE n.manifests > 0 ORDER BY n.key LIMIT %(limit)s + 1)) AS p(repository)
"""  # noqa: S608 - put together from constants; values go as parameters


def page(reader: Reader, after: str | None, limit: int) -> tuple[list[str], bool]:
    """At most `limit` repositories with a manifest after `after`, in bytewise order, and True if there are more."""
    (found,) = reader.one(_PAGE, {"after": after or "", "limit": limit})
    names = sorted(found or ())
    return names[:limit], len(names) > limit and limit > 0
