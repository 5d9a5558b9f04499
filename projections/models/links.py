"""Links: the blobs that each repository may serve."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from domain.link import BlobLinked, BlobUnlinked
from projections.columns import Name, SmallNumber, table_of
from projections.model import Happened, Key, Model, Rows
from projections.reader import Reader, log_tail


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A repository's right to a blob: its size in bytes and the generation of its file."""

    repository: Name
    digest: Name
    size: int
    generation: SmallNumber
    source: str
    linked_at: datetime
    position: int


table = table_of(LinkRow, "links_s1", ("repository", "digest"))
sa.Index("links_s1_digest", table.c.digest, table.c.repository)


def _touched(happened: Happened) -> Iterable[Key]:
    match happened.event:
        case BlobLinked(repository, digest) | BlobUnlinked(repository, digest):
            return ((repository, digest),)
    return ()


def _fold(rows: Rows, happened: Happened) -> None:
    match happened.event:
        case BlobLinked(repository, digest, size, generation, source):
            rows[repository, digest] = LinkRow(
                repository, digest, size, generation, source, happened.recorded_at, happened.position
            )
        case BlobUnlinked(repository, digest):
            rows[repository, digest] = None


_SET_FOLD = """
SELECT e.key, d.data->>'digest', (d.data->>'size')::bigint, (d.data->>'generation')::integer, d.data->>'source',
       e.recorded_at, e.position
  FROM range_event AS e
 CROSS JOIN LATERAL (SELECT e.data::jsonb AS data OFFSET 0) AS d
 WHERE e.type = 'BlobLinked' AND e.is_last
"""
model = Model("links", 1, table, LinkRow, frozenset({BlobLinked.TYPE, BlobUnlinked.TYPE}), _touched, _fold, _SET_FOLD)

_REPOSITORIES = f"""
WITH tail AS MATERIALIZED (
     SELECT DISTINCT ON (t.key) t.* FROM (
{log_tail("links_s1", "e.type IN ('BlobLinked', 'BlobUnlinked') AND e.stream = 'link-' || e.key || '@' || %(digest)s")}
     ) AS t WHERE t.key > %(after)s ORDER BY t.key, t.position DESC
)
SELECT (SELECT array_agg(p.repository) FROM (
            SELECT l.repository FROM readmodel.links_s1 AS l
             WHERE l.digest = %(digest)s AND l.repository > %(after)s
               AND l.repository NOT IN (SELECT tail.key FROM tail WHERE tail.type = 'BlobUnlinked')
             ORDER BY l.repository LIMIT %(limit)s) AS p),
       (SELECT json_agg(new.item ORDER BY new.position) FROM (
            SELECT tail.* FROM tail WHERE tail.type = 'BlobLinked' ORDER BY tail.key LIMIT %(limit)s) AS new)
"""  # noqa: S608 - put together from constants; values go as parameters


def repositories_of(reader: Reader, digest: str, after: str, limit: int) -> list[str]:
    """At most `limit` repositories after `after` that link the blob, in bytewise order."""
    found, tail = reader.one(_REPOSITORIES, {"digest": digest, "after": after, "limit": limit})
    rows: Rows = {(each, digest): each for each in found or ()}
    reader.overlay(model, rows, tail)
    return sorted(name for (name, _), row in rows.items() if row is not None and name > after)[:limit]
