"""Manifests: those that each repository serves, with their types and what is known of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.facts import Facts
from domain.manifest import ManifestDeleted, ManifestPushed
from domain.tag import TagDeleted, TagMoved
from eventstore.statement import Statement
from projections.columns import Name, table_of
from projections.model import Happened, Key, Known, Model, Rows
from projections.models import tags
from projections.reader import Reader, stream_tails


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A manifest of a repository; `media_type` is the one of its last push (rule: the last type wins).

    `size` is the size of its own bytes, `content_size` that of everything it names.
    """

    repository: Name
    digest: Name
    media_type: str
    size: int
    kind: str | None
    subject: Name | None
    artifact_type: str | None
    platform: str | None
    created: str | None
    config_digest: Name | None
    content_size: int
    pushed_at: datetime
    position: int


table = table_of(ManifestRow, "manifests_s2", ("repository", "digest"))


def _touched(happened: Happened) -> Iterable[Key]:
    match happened.event:
        case ManifestPushed(repository, digest) | ManifestDeleted(repository, digest):
            return ((repository, digest),)
    return ()


def _fold(rows: Rows, happened: Happened) -> None:
    match happened.event:
        case ManifestPushed() as pushed:
            rows[pushed.repository, pushed.digest] = _row(pushed, happened)
        case ManifestDeleted(repository, digest):
            rows[repository, digest] = None


def _row(pushed: ManifestPushed, happened: Happened) -> ManifestRow:
    facts = happened.facts or Facts(kind="")
    return ManifestRow(
        repository=pushed.repository,
        digest=pushed.digest,
        media_type=pushed.media_type,
        size=pushed.size,
        kind=facts.kind or None,
        subject=pushed.subject,
        artifact_type=facts.artifact_type,
        platform=facts.platform,
        created=facts.created,
        config_digest=facts.config_digest,
        content_size=facts.size,
        pushed_at=happened.recorded_at,
        position=happened.position,
    )


_SET_FOLD = """
SELECT e.key, d.data->>'digest', d.data->>'media_type', (d.data->>'size')::bigint, nullif(e.facts->>'kind', ''),
       d.data->>'subject', e.facts->>'artifact_type', e.facts->>'platform', e.facts->>'created',
       jsonb_path_query_first(e.facts, '$.references[*] ? (@.role == "config").digest') #>> '{}',
       coalesce((e.facts->>'size')::bigint, 0), e.recorded_at, e.position
  FROM range_event AS e
 CROSS JOIN LATERAL (SELECT e.data::jsonb AS data OFFSET 0) AS d
 WHERE e.type = 'ManifestPushed' AND e.is_last
"""
model = Model(
    "manifests",
    2,
    table,
    ManifestRow,
    frozenset({ManifestPushed.TYPE, ManifestDeleted.TYPE}),
    _touched,
    _fold,
    _SET_FOLD,
    known=Known.BRIEF,
)


@dataclass(frozen=True, slots=True)
class ManifestFound:
    """The manifest that answers a pull; `body` is None if it was not asked for."""

    digest: str
    media_type: str
    size: int
    body: bytes | None


_BY_DIGEST = """
SELECT m.media_type, m.size, c.body, (
    SELECT json_agg(tail.item ORDER BY tail.position) FROM ({tail}) AS tail)
  FROM (SELECT) AS nothing
  LEFT JOIN readmodel.manifests_s2 AS m ON m.repository = %(key)s AND m.digest = %(digest)s
  LEFT JOIN {content} AS c ON c.digest = %(digest)s
"""
_BY_TAG = """
SELECT t.digest, m.media_type, m.size, c.body, (
    SELECT json_agg(tail.item ORDER BY tail.position) FROM ({tail}) AS tail)
  FROM (SELECT) AS nothing
  LEFT JOIN readmodel.tags_s1 AS t ON t.repository = %(key)s AND t.tag = %(tag)s
  LEFT JOIN readmodel.manifests_s2 AS m ON m.repository = %(key)s AND m.digest = t.digest
  LEFT JOIN {content} AS c ON c.digest = t.digest
"""
_WITH_BODY = "log.es_content"
_WITHOUT_BODY = "(SELECT NULL::text AS digest, NULL::bytea AS body WHERE false)"
_DIGEST_TAIL = stream_tails(
    ("manifests_s2",), (ManifestPushed, ManifestDeleted), "'manifest-' || %(key)s || '@' || %(digest)s"
)
_TAG_TAIL = stream_tails(
    ("manifests_s2", "tags_s1"),
    (ManifestPushed, ManifestDeleted, TagMoved, TagDeleted),
    "'tag-' || %(key)s || ':' || %(tag)s",
    "'manifest-' || %(key)s || '@' || t.digest",
)
_DIGEST_QUERIES = {
    True: Statement(_BY_DIGEST.format(tail=_DIGEST_TAIL, content=_WITH_BODY)),
    False: Statement(_BY_DIGEST.format(tail=_DIGEST_TAIL, content=_WITHOUT_BODY)),
}
_TAG_QUERIES = {
    True: Statement(_BY_TAG.format(tail=_TAG_TAIL, content=_WITH_BODY)),
    False: Statement(_BY_TAG.format(tail=_TAG_TAIL, content=_WITHOUT_BODY)),
}
_ATTEMPTS_MAX = 5


def by_digest(reader: Reader, repository: str, digest: str, *, with_body: bool = True) -> ManifestFound | None:
    """The manifest, if the repository serves it."""
    parameters = {"key": repository, "digest": digest}
    media_type, size, body, tail = reader.one(_DIGEST_QUERIES[with_body], parameters)
    row: Any = None if media_type is None else (media_type, size)
    if tail is not None:
        row = _overlaid(reader, tail, repository, digest, row)
    return None if row is None else ManifestFound(digest, row[0], row[1], body)


def by_tag(reader: Reader, repository: str, tag: str, *, with_body: bool = True) -> ManifestFound | None:
    """The manifest that the tag names now.

    If the tail moved the tag to a manifest that the statement has not brought, that manifest is asked for by digest,
    since its bytes never change. If it was deleted in between, the tag may name another one by now: ask again.
    """
    for _ in range(_ATTEMPTS_MAX):
        digest, media_type, size, body, tail = reader.one(_TAG_QUERIES[with_body], {"key": repository, "tag": tag})
        if tail is None:
            return None if media_type is None else ManifestFound(digest, media_type, size, body)
        named = _tag_overlaid(reader, tail, repository, tag, digest)
        if named is None:
            return None
        found = by_digest(reader, repository, named, with_body=with_body)
        if found is not None:
            return found
    return None


def _overlaid(reader: Reader, tail: list[Any], repository: str, digest: str, row: Any) -> tuple[str, int] | None:
    rows: Rows = {(repository, digest): row}
    for happened in reader.tail_of(tail):
        model.apply(rows, happened)
    found = rows[repository, digest]
    if isinstance(found, ManifestRow):
        return found.media_type, found.size
    return None if found is None else (found[0], found[1])


def _tag_overlaid(reader: Reader, tail: list[Any], repository: str, tag: str, digest: str | None) -> str | None:
    rows: Rows = {}
    for happened in reader.tail_of(tail):
        tags.model.apply(rows, happened)
    if (repository, tag) not in rows:
        return digest
    found: tags.TagRow | None = rows[repository, tag]
    return None if found is None else found.digest
