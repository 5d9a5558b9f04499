"""Tags: the manifest that each names now."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from domain.tag import TagDeleted, TagMoved
from projections.columns import Name, table_of
from projections.model import Happened, Key, Model, Rows
from projections.reader import Reader, key_tail


@dataclass(frozen=True, slots=True)
class TagRow:
    """A tag and the manifest that it names; `position` is that of its last move."""

    repository: Name
    tag: Name
    digest: Name
    moved_at: datetime
    position: int


table = table_of(TagRow, "tags_s1", ("repository", "tag"))


def _touched(happened: Happened) -> Iterable[Key]:
    match happened.event:
        case TagMoved(repository, tag) | TagDeleted(repository, tag):
            return ((repository, tag),)
    return ()


def _fold(rows: Rows, happened: Happened) -> None:
    match happened.event:
        case TagMoved(repository, tag, digest):
            rows[repository, tag] = TagRow(repository, tag, digest, happened.recorded_at, happened.position)
        case TagDeleted(repository, tag):
            rows[repository, tag] = None


_SET_FOLD = """
SELECT e.key, e.data->>'tag', e.data->>'digest', e.recorded_at, e.position
  FROM range_event AS e
 WHERE e.type = 'TagMoved' AND e.is_last
"""
model = Model("tags", 1, table, TagRow, frozenset({TagMoved.TYPE, TagDeleted.TYPE}), _touched, _fold, _SET_FOLD)


@dataclass(frozen=True, slots=True)
class TagPage:
    """A page of tags in bytewise order; `known` is False if nothing was ever put into the repository."""

    known: bool
    tags: list[str]
    more: bool


# Of each tag the tail says what its last event says, and of those that it moved no more are brought than a page shows.
_PAGE = f"""
WITH tail AS MATERIALIZED (
     SELECT DISTINCT ON (t.stream) t.*, substr(t.stream, length('tag-' || %(key)s || ':') + 1) AS tag FROM (
{key_tail(("tags_s1",))}
   AND e.type IN ('TagMoved', 'TagDeleted') AND e.stream > 'tag-' || %(key)s || ':' || %(after)s
     ) AS t ORDER BY t.stream, t.position DESC
)
SELECT (SELECT array_agg(p.tag) FROM (
            SELECT t.tag FROM readmodel.tags_s1 AS t
             WHERE t.repository = %(key)s AND t.tag > %(after)s
               AND t.tag NOT IN (SELECT tail.tag FROM tail WHERE tail.type = 'TagDeleted')
             ORDER BY t.tag LIMIT %(limit)s + 1) AS p),
       EXISTS (SELECT FROM readmodel.catalog_s1 AS c WHERE c.repository = %(key)s)
       OR EXISTS ({key_tail(("catalog_s1",))} AND e.type = 'RepositoryCreated'),
       (SELECT json_agg(moved.item ORDER BY moved.position) FROM (
            SELECT tail.* FROM tail WHERE tail.type = 'TagMoved' ORDER BY tail.stream LIMIT %(limit)s + 1) AS moved)
"""  # noqa: S608 - put together from constants; values go as parameters


def page(reader: Reader, repository: str, after: str | None, limit: int) -> TagPage:
    """At most `limit` tags after `after` (exclusive, need not exist)."""
    found, known, tail = reader.one(_PAGE, {"key": repository, "after": after or "", "limit": limit})
    rows: Rows = {(repository, each): each for each in found or ()}
    for happened in reader.tail_of(tail):
        model.apply(rows, happened)
    tags = sorted(tag for (_, tag), row in rows.items() if row is not None and tag > (after or ""))
    return TagPage(known, tags[:limit], len(tags) > limit and limit > 0)
