"""Audit: the trail of all changes, one row for each event, kept for ever; asked by repository, tag, actor, kind, time.

Times of the log never fall, so a time is a position, and pages go on by positions whatever is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from domain.event import Event
from domain.link import BlobLinked, BlobUnlinked
from domain.manifest import ManifestDeleted, ManifestPushed
from domain.repository import RepositoryCreated
from domain.streams import PRESENT, digest_of_manifest_stream
from domain.tag import TagDeleted, TagMoved
from projections.columns import Name, table_of
from projections.model import Happened, Key, Model, Rows
from projections.reader import Reader, key_tail, log_tail


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change: what happened, to which tag, from and to which digest."""

    repository: Name
    position: int
    recorded_at: datetime
    actor: str
    what: str
    tag: Name | None
    from_digest: Name | None
    to_digest: Name | None
    request_id: str


table = table_of(AuditRow, "audit_s2", ("repository", "position"))
sa.Index(
    "audit_s2_tag",
    table.c.repository,
    table.c.tag,
    table.c.position,
    postgresql_where=table.c.tag.is_not(None),
)
sa.Index("audit_s2_actor", table.c.actor, table.c.position)
# A question about all kinds asks for each of them, so time alone needs no index of its own.
sa.Index("audit_s2_what", table.c.what, table.c.position)
KINDS = (
    *("repository-created", "tag-created", "tag-repeated", "tag-moved", "tag-deleted"),
    *("manifest-pushed", "manifest-repeated", "manifest-deleted", "blob-uploaded", "blob-mounted", "blob-unlinked"),
)


def _change(event: Event, prev_ref: str | None) -> tuple[str, str | None, str | None, str | None] | None:
    """The kind of the change, the tag, the digest before and the digest after."""
    before = digest_of_manifest_stream(prev_ref) if prev_ref and "@" in prev_ref else None
    match event:
        case RepositoryCreated():
            return "repository-created", None, None, None
        case TagMoved(_, tag, digest):
            what = "tag-created" if before is None else "tag-repeated" if before == digest else "tag-moved"
            return what, tag, before, digest
        case TagDeleted(_, tag):
            return "tag-deleted", tag, before, None
        case ManifestPushed(_, digest):
            return "manifest-repeated" if prev_ref == PRESENT else "manifest-pushed", None, None, digest
        case ManifestDeleted(_, digest):
            return "manifest-deleted", None, digest, None
        case BlobLinked(_, digest, _, _, source):
            return "blob-mounted" if source == "mount" else "blob-uploaded", None, None, digest
        case BlobUnlinked(_, digest):
            return "blob-unlinked", None, digest, None
    return None


def _touched(happened: Happened) -> Iterable[Key]:
    return ((happened.key, happened.position),)


def _fold(rows: Rows, happened: Happened) -> None:
    change = _change(happened.event, happened.prev_ref)
    if change is None:
        return
    what, tag, before, after = change
    rows[happened.key, happened.position] = AuditRow(
        happened.key,
        happened.position,
        happened.recorded_at,
        happened.actor,
        what,
        tag,
        before,
        after,
        happened.request_id,
    )


TYPES = frozenset(
    each.TYPE
    for each in (
        RepositoryCreated,
        TagMoved,
        TagDeleted,
        ManifestPushed,
        ManifestDeleted,
        BlobLinked,
        BlobUnlinked,
    )
)
_BEFORE = "CASE WHEN e.prev_ref LIKE '%%@%%' THEN substring(e.prev_ref FROM '[^@]*$') END"
_WHAT = f"""
       CASE e.type
            WHEN 'RepositoryCreated' THEN 'repository-created'
            WHEN 'TagMoved' THEN CASE WHEN {_BEFORE} IS NULL THEN 'tag-created'
                                      WHEN {_BEFORE} = e.data->>'digest' THEN 'tag-repeated'
                                      ELSE 'tag-moved' END
            WHEN 'TagDeleted' THEN 'tag-deleted'
            WHEN 'ManifestPushed' THEN CASE e.prev_ref WHEN 'present' THEN 'manifest-repeated'
                                                       ELSE 'manifest-pushed' END
            WHEN 'ManifestDeleted' THEN 'manifest-deleted'
            WHEN 'BlobLinked' THEN CASE e.data->>'source' WHEN 'mount' THEN 'blob-mounted' ELSE 'blob-uploaded' END
            WHEN 'BlobUnlinked' THEN 'blob-unlinked'
       END"""
_SET_FOLD = f"""
SELECT e.key, e.position, e.recorded_at, e.actor, {_WHAT},
       CASE WHEN e.type IN ('TagMoved', 'TagDeleted') THEN e.data->>'tag' END,
       CASE WHEN e.type IN ('TagMoved', 'TagDeleted') THEN {_BEFORE}
            WHEN e.type IN ('ManifestDeleted', 'BlobUnlinked') THEN e.data->>'digest' END,
       CASE WHEN e.type IN ('TagMoved', 'ManifestPushed', 'BlobLinked') THEN e.data->>'digest' END,
       e.request_id
  FROM range_event AS e
 WHERE e.type IN ('RepositoryCreated', 'TagMoved', 'TagDeleted', 'ManifestPushed', 'ManifestDeleted', 'BlobLinked',
                  'BlobUnlinked')
"""  # noqa: S608 - put together from constants; values go as parameters
model = Model("audit", 2, table, AuditRow, TYPES, _touched, _fold, _SET_FOLD)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The changes that are asked for: all that meet every condition that is given.

    `tag` is one of `repository`; `what` names some of KINDS, none for all; `since` is the first moment and `until` the
    one after the last.
    """

    repository: str | None = None
    tag: str | None = None
    actor: str | None = None
    what: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Changes, newest first. `before` asks for the next page, None after the last one; a page may have no change."""

    rows: list[AuditRow]
    before: int | None


# Conditions that no index has are looked for in so many rows. Rows behind those are for the next page, so a page costs
# no more, however few rows meet the conditions.
SCANNED_MAX = 1_000
_NO_END = 2**62
_MICROSECOND = "interval '1 microsecond'"
# The positions of the page: after the first one, before the second.
_BOUNDS = f"""
WITH bounds AS MATERIALIZED (
     SELECT CASE WHEN %(since)s::timestamptz IS NULL THEN 0
                 ELSE log.es_position_at(0::smallint, %(since)s::timestamptz - {_MICROSECOND}) END AS low,
            CASE WHEN %(until)s::timestamptz IS NULL THEN %(before)s::bigint
                 ELSE least(%(before)s::bigint,
                            1 + log.es_position_at(0::smallint, %(until)s::timestamptz - {_MICROSECOND})) END AS high
)"""
_WITHIN = "{row}.position > (SELECT b.low FROM bounds AS b) AND {row}.position < (SELECT b.high FROM bounds AS b)"
_OF_EVENT = f"e.type = ANY(%(types)s) AND {_WITHIN.format(row='e')}"
_SCAN = f"""
     SELECT a.* FROM readmodel.audit_s2 AS a WHERE {{by}} AND {_WITHIN.format(row="a")}
      ORDER BY a.position DESC LIMIT %(scanned)s"""  # noqa: S608 - put together from constants; values go as parameters
# Each by its own index, whose order is that of the page.
_BY = {
    "repository": _SCAN.format(by="a.repository = %(key)s"),
    "tag": _SCAN.format(by="a.repository = %(key)s AND a.tag = %(tag)s"),
    "actor": _SCAN.format(by="a.actor = %(actor)s"),
    "what": f"""
     SELECT a.* FROM unnest(%(what)s::text[]) AS k(what)
      CROSS JOIN LATERAL ({_SCAN.format(by="a.what = k.what")}) AS a
      ORDER BY a.position DESC LIMIT %(scanned)s""",  # noqa: S608 - as above
}
_QUESTION = """{bounds}, page AS MATERIALIZED (
     SELECT s.* FROM ({scan}) AS s WHERE {of_row} ORDER BY s.position DESC LIMIT %(limit)s + 1
)
SELECT (SELECT json_agg(json_build_array(p.repository, p.position, p.recorded_at, p.actor, p.what, p.tag,
                                         p.from_digest, p.to_digest, p.request_id)) FROM page AS p),
       {floor},
       (SELECT json_agg(tail.item ORDER BY tail.position) FROM (
            SELECT t.* FROM ({tail}) AS t ORDER BY t.position DESC LIMIT %(limit)s + 1) AS tail)
"""
# The position before which nothing was looked at. It is not asked for where the page is full, and then most of what
# might be looked at is not.
_FLOOR = """CASE WHEN (SELECT count(*) FROM page) > %(limit)s THEN 0
            ELSE (SELECT CASE WHEN count(*) = %(scanned)s THEN min(s.position) ELSE 0 END FROM ({scan}) AS s) END"""
_TAIL = key_tail((model.id,))


def history(reader: Reader, wanted: Wanted, *, before: int | None = None, limit: int = 100) -> Page:
    """At most `limit` of the changes before the position `before`."""
    query, asked = _question(wanted, limit)
    end = before or _NO_END
    found, floor, tail = reader.one(query, {**asked, "before": end, "limit": limit, "types": sorted(TYPES)})
    rows: Rows = {}
    for each in found or ():
        row = AuditRow(each[0], each[1], datetime.fromisoformat(each[2]), *each[3:])
        rows[row.repository, row.position] = row
    if wanted.repository is None:
        reader.overlay(model, rows, tail)
    else:
        for happened in reader.tail_of(tail):
            model.apply(rows, happened)
    # The tail before that is for the next page too.
    listed = sorted((row for row in rows.values() if row.position >= floor), key=lambda row: -row.position)
    if len(listed) > limit:
        return Page(listed[:limit], listed[limit - 1].position)
    return Page(listed, floor or None)


def _question(wanted: Wanted, limit: int) -> tuple[str, dict[str, Any]]:
    """The statement for what is wanted, by the index that has most of it, and its parameters."""
    asked: dict[str, Any] = {"since": wanted.since, "until": wanted.until, "actor": wanted.actor}
    asked["what"] = list(wanted.what or KINDS)
    conditions = {"actor": "{row}.actor = %(actor)s"} if wanted.actor is not None else {}
    conditions |= {"what": "{what} = ANY(%(what)s::text[])"} if wanted.what else {}
    of_event = [_OF_EVENT, *(each.format(row="e", what=f"({_WHAT})") for each in conditions.values())]
    if wanted.repository is not None:
        by = "repository" if wanted.tag is None else "tag"
        asked |= {"key": wanted.repository, "tag": wanted.tag}
        if wanted.tag is not None:
            # If the repository has no tail, as usual, the events of the tag are not looked at.
            of_event.append(f"e.stream = 'tag-' || %(key)s || ':' || %(tag)s AND EXISTS ({_TAIL})")
        tail = f"{_TAIL} AND {' AND '.join(of_event)}"
    else:
        by = "actor" if wanted.actor is not None else "what"
        tail = log_tail(model.id, " AND ".join(of_event))
    left = [each.format(row="s", what="s.what") for name, each in conditions.items() if name != by]
    asked["scanned"] = SCANNED_MAX if left else limit + 1
    scan = _BY[by]
    of_row, floor = (" AND ".join(left), _FLOOR.format(scan=scan)) if left else ("true", "0")
    query = _QUESTION.format(bounds=_BOUNDS, scan=scan, of_row=of_row, floor=floor, tail=tail)
    return query, asked
