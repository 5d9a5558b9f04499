"""Audit: the trail of all changes of a repository, one row for each event, kept for ever."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from domain.event import Event
from domain.link import BlobLinked, BlobUnlinked
from domain.manifest import ManifestDeleted, ManifestPushed
from domain.repository import RepositoryCreated
from domain.streams import PRESENT, digest_of_manifest_stream
from domain.tag import TagDeleted, TagMoved
from projections.columns import Name, table_of
from projections.model import Happened, Key, Model, Rows
from projections.reader import Reader, key_tail


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


table = table_of(AuditRow, "audit_s1", ("repository", "position"))
sa.Index(
    "audit_s1_tag",
    table.c.repository,
    table.c.tag,
    table.c.position,
    postgresql_where=table.c.tag.is_not(None),
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
_SET_FOLD = f"""
SELECT e.key, e.position, e.recorded_at, e.actor,
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
       END,
       CASE WHEN e.type IN ('TagMoved', 'TagDeleted') THEN e.data->>'tag' END,
       CASE WHEN e.type IN ('TagMoved', 'TagDeleted') THEN {_BEFORE}
            WHEN e.type IN ('ManifestDeleted', 'BlobUnlinked') THEN e.data->>'digest' END,
       CASE WHEN e.type IN ('TagMoved', 'ManifestPushed', 'BlobLinked') THEN e.data->>'digest' END,
       e.request_id
  FROM range_event AS e
 WHERE e.type IN ('RepositoryCreated', 'TagMoved', 'TagDeleted', 'ManifestPushed', 'ManifestDeleted', 'BlobLinked',
                  'BlobUnlinked')
"""  # noqa: S608 - put together from constants; values go as parameters
model = Model("audit", 1, table, AuditRow, TYPES, _touched, _fold, _SET_FOLD)

_HISTORY = """
SELECT (SELECT json_agg(json_build_array(p.repository, p.position, p.recorded_at, p.actor, p.what, p.tag,
                                         p.from_digest, p.to_digest, p.request_id)) FROM (
            SELECT a.* FROM readmodel.audit_s1 AS a
             WHERE a.repository = %(key)s AND a.position < %(before)s {of_tag}
             ORDER BY a.position DESC LIMIT %(limit)s + 1) AS p),
       (SELECT json_agg(tail.item ORDER BY tail.position) FROM (
{tail} AND e.type = ANY(%(types)s) AND e.position < %(before)s {in_stream}
             ORDER BY e.position DESC LIMIT %(limit)s + 1) AS tail)
"""
_TAIL = key_tail(("audit_s1",))
_OF_REPOSITORY = _HISTORY.format(tail=_TAIL, of_tag="", in_stream="")
# If the repository has no tail, as usual, the events of the tag are not looked at.
_OF_TAG = _HISTORY.format(
    tail=_TAIL,
    of_tag="AND a.tag = %(tag)s",
    in_stream=f"AND e.stream = 'tag-' || %(key)s || ':' || %(tag)s AND EXISTS ({_TAIL})",
)
_NO_LIMIT = 2**62


def history(
    reader: Reader, repository: str, *, tag: str | None = None, before: int | None = None, limit: int = 100
) -> tuple[list[AuditRow], bool]:
    """At most `limit` changes before the position `before`, newest first, and True if there are older ones."""
    end = before or _NO_LIMIT
    found, tail = reader.one(
        _OF_REPOSITORY if tag is None else _OF_TAG,
        {"key": repository, "before": end, "tag": tag, "limit": limit, "types": sorted(TYPES)},
    )
    rows: Rows = {}
    for each in found or ():
        row = AuditRow(each[0], each[1], datetime.fromisoformat(each[2]), *each[3:])
        rows[row.repository, row.position] = row
    for happened in reader.tail_of(tail):
        model.apply(rows, happened)
    listed = sorted(
        (row for row in rows.values() if row.position < end and tag in (None, row.tag)),
        key=lambda row: -row.position,
    )
    return listed[:limit], len(listed) > limit
