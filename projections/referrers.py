"""Referrers: manifests by the subject that they name (protocol section 4)."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from domain.facts import Facts
from domain.manifest import ManifestDeleted, ManifestPushed
from projections.model import Happened, Key, Model, Rows, metadata, name_column
from projections.reader import Reader, key_tail

table = sa.Table(
    "referrers_s2",
    metadata,
    name_column("repository", primary_key=True),
    name_column("digest", primary_key=True),
    name_column("subject"),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    name_column("artifact_type", nullable=True),
    sa.Column("annotations_json", sa.Text, nullable=False),
)
sa.Index("referrers_s2_subject", table.c.repository, table.c.subject, table.c.digest)


@dataclass(frozen=True, slots=True)
class ReferrerRow:
    """A manifest that names a subject; `artifact_type` as the API lists it (R2)."""

    repository: str
    digest: str
    subject: str
    media_type: str
    size: int
    artifact_type: str | None
    annotations_json: str

    @property
    def annotations(self) -> Mapping[str, str]:
        """All annotations of the manifest."""
        made: dict[str, str] = json.loads(self.annotations_json)
        return made


def _touched(happened: Happened) -> Iterable[Key]:
    match happened.event:
        case ManifestPushed(repository, digest) | ManifestDeleted(repository, digest):
            return ((repository, digest),)
    return ()


def _fold(rows: Rows, happened: Happened) -> None:
    match happened.event:
        case ManifestPushed(repository, digest, media_type, size, subject) if subject is not None:
            facts = happened.facts or Facts(kind="")
            rows[repository, digest] = ReferrerRow(
                repository,
                digest,
                subject,
                media_type,
                size,
                facts.artifact_type,
                _to_text(facts.annotations),
            )
        case ManifestDeleted(repository, digest):
            rows[repository, digest] = None


def _to_text(annotations: Mapping[str, str]) -> str:
    """As the database would write it too: keys by their bytes, nothing escaped that need not be."""
    return json.dumps(dict(annotations), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_SET_FOLD = """
SELECT e.key, e.data->>'digest', e.data->>'subject', e.data->>'media_type', (e.data->>'size')::bigint,
       e.facts->>'artifact_type',
       coalesce((SELECT '{' || string_agg(to_json(a.key)::text || ':' || to_json(a.value)::text, ','
                                          ORDER BY a.key COLLATE "C") || '}'
                   FROM jsonb_each_text(e.facts->'annotations') AS a), '{}')
  FROM range_event AS e
 WHERE e.type = 'ManifestPushed' AND e.data->>'subject' IS NOT NULL AND e.is_last
"""
model = Model(
    "referrers",
    2,
    table,
    ReferrerRow,
    frozenset({ManifestPushed.TYPE, ManifestDeleted.TYPE}),
    _touched,
    _fold,
    _SET_FOLD,
    needs_facts=True,
)

_PAGE = f"""
WITH tail AS MATERIALIZED (
{key_tail(("referrers_s2",), with_facts=True)}
   AND (e.type = 'ManifestPushed' AND e.data->>'subject' = %(subject)s OR e.type = 'ManifestDeleted')
)
SELECT (SELECT json_agg(json_build_array(p.repository, p.digest, p.subject, p.media_type, p.size, p.artifact_type,
                                         p.annotations_json)) FROM (
            SELECT r.* FROM readmodel.referrers_s2 AS r
             WHERE r.repository = %(key)s AND r.subject = %(subject)s AND r.digest > %(after)s
               AND (%(types)s::text[] IS NULL OR r.artifact_type = ANY(%(types)s::text[]))
             ORDER BY r.digest
             LIMIT %(limit)s + 1 + (SELECT count(*) FROM tail WHERE type = 'ManifestDeleted')) AS p),
       (SELECT json_agg(tail.item ORDER BY tail.position) FROM tail)
"""  # noqa: S608 - put together from constants; values go as parameters


def page(
    reader: Reader,
    repository: str,
    subject: str,
    artifact_types: frozenset[str],
    after: str | None,
    limit: int,
) -> tuple[list[ReferrerRow], bool]:
    """At most `limit` referrers of the subject after the digest `after`, of these types if any are named."""
    found, tail = reader.one(
        _PAGE,
        {
            "key": repository,
            "subject": subject,
            "after": after or "",
            # No manifest has a type with NUL, and the database would not take one.
            "types": sorted(each for each in artifact_types if "\x00" not in each) if artifact_types else None,
            "limit": limit,
        },
    )
    rows: Rows = {(row.repository, row.digest): row for row in (ReferrerRow(*each) for each in found or ())}
    for happened in reader.tail_of(tail):
        model.apply(rows, happened)
    standing = sorted(
        (
            row
            for row in rows.values()
            if row is not None
            and row.digest > (after or "")
            and (not artifact_types or row.artifact_type in artifact_types)
        ),
        key=lambda row: row.digest,
    )
    return standing[:limit], len(standing) > limit
