"""Referrers: manifests by the subject that they name.

Annotations may be megabytes, so a row holds only small ones. Larger ones are read from the bytes of the manifests on a
page. The database cuts a page before it becomes too large (rule: bounded memory).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from domain.facts import (
    ANNOTATIONS_BYTES_MAX,
    ANNOTATIONS_LEFT_OUT,
    Facts,
    small_annotations_json,
)
from domain.manifest import ManifestDeleted, ManifestPushed
from domain.manifest_parser import annotations_of
from projections.columns import Name, table_of
from projections.facts_sql import facts_known
from projections.model import Happened, Key, Known, Model, Rows
from projections.reader import Reader, key_tail


@dataclass(frozen=True, slots=True)
class ReferrerRow:
    """A manifest that names a subject; `artifact_type` as the API lists it.

    `annotations_json` is None if the annotations must be read from the manifest itself.
    """

    repository: Name
    digest: Name
    subject: Name
    media_type: str
    size: int
    artifact_type: Name | None
    annotations_json: str | None


table = table_of(ReferrerRow, "referrers_s3", ("repository", "digest"))
sa.Index("referrers_s3_subject", table.c.repository, table.c.subject, table.c.digest)


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
                small_annotations_json(facts),
            )
        case ManifestDeleted(repository, digest):
            rows[repository, digest] = None


_SET_FOLD = f"""
SELECT e.key, e.data->>'digest', e.data->>'subject', e.data->>'media_type', (e.data->>'size')::bigint,
       e.facts->>'artifact_type',
       CASE WHEN e.facts->'annotations' ? '{ANNOTATIONS_LEFT_OUT}' OR octet_length(a.text) > {ANNOTATIONS_BYTES_MAX}
            THEN NULL ELSE a.text END
  FROM range_event AS e
 CROSS JOIN LATERAL (
       SELECT coalesce('{{' || string_agg(to_json(a.key)::text || ':' || to_json(a.value)::text, ','
                                          ORDER BY a.key COLLATE "C") || '}}', '{{}}') AS text
         FROM jsonb_each_text(e.facts->'annotations') AS a) AS a
 WHERE e.type = 'ManifestPushed' AND e.data->>'subject' IS NOT NULL AND e.is_last
"""  # noqa: S608 - put together from constants
model = Model(
    "referrers",
    3,
    table,
    ReferrerRow,
    frozenset({ManifestPushed.TYPE, ManifestDeleted.TYPE}),
    _touched,
    _fold,
    _SET_FOLD,
    known=Known.BRIEF,
)

# A row of a page costs this, and its annotations, or the whole manifest if they must be read from it.
_ROW_BYTES = 400
# The last event of a manifest in the tail tells its state. Tail and rows are each looked at in order of digest as far
# as a page may reach; `edge` is the last digest that fits, if there are more behind it.
_PAGE = f"""
WITH tail AS MATERIALIZED (
     SELECT DISTINCT ON (t.content) t.* FROM (
{key_tail(("referrers_s3",))}
   AND (e.type = 'ManifestPushed' AND e.data->>'subject' = %(subject)s OR e.type = 'ManifestDeleted')
   AND e.content > %(after)s
     ) AS t ORDER BY t.content, t.position DESC
), rows AS MATERIALIZED (
     SELECT r.*, coalesce(octet_length(r.annotations_json), r.size) AS bytes FROM readmodel.referrers_s3 AS r
      WHERE r.repository = %(key)s AND r.subject = %(subject)s AND r.digest > %(after)s
        AND (%(types)s::text[] IS NULL OR r.artifact_type = ANY(%(types)s::text[]))
      ORDER BY r.digest LIMIT %(limit)s + 1
), seen AS (
     SELECT digest, max(bytes) + {_ROW_BYTES} AS bytes FROM (
         SELECT rows.digest, rows.bytes FROM rows
         UNION ALL
         (SELECT t.content, ((t.item->>8)::json->>'size')::bigint FROM tail AS t
           WHERE t.type = 'ManifestPushed' ORDER BY t.content LIMIT %(limit)s + 1)) AS s
      GROUP BY digest
), placed AS (
     SELECT digest, row_number() OVER w AS place, sum(bytes) OVER w AS upto, count(*) OVER () AS number
       FROM seen WINDOW w AS (ORDER BY digest ROWS UNBOUNDED PRECEDING)
), page AS MATERIALIZED (
     SELECT max(digest) AS edge, count(*) < max(number) AS cut FROM placed
      WHERE place = 1 OR place <= %(limit)s AND upto <= %(bytes)s
)
SELECT (SELECT json_agg(json_build_array(r.repository, r.digest, r.subject, r.media_type, r.size, r.artifact_type,
                                         r.annotations_json)) FROM rows AS r, page
         WHERE NOT page.cut OR r.digest <= page.edge),
       (SELECT json_agg(json_build_array(
                   t.item->0, t.item->1, t.item->2, t.item->3, t.item->4, t.item->5, t.item->6, t.item->7, t.item->8,
                   (SELECT {facts_known(Known.BRIEF, "f")} FROM log.es_content AS f WHERE f.digest = t.content))
               ORDER BY t.position) FROM tail AS t, page WHERE NOT page.cut OR t.content <= page.edge),
       (SELECT CASE WHEN page.cut THEN page.edge END FROM page)
"""  # noqa: S608 - put together from constants; values go as parameters
_BODIES = "SELECT c.digest, c.body FROM log.es_content AS c WHERE c.digest = ANY(%(digests)s)"


@dataclass(frozen=True, slots=True)
class Referrer:
    """A referrer as a list shows it, with all annotations of the manifest."""

    row: ReferrerRow
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Referrers:
    """A page of referrers; `last` is where the next one begins, None if there is none."""

    listed: list[Referrer]
    last: str | None


def page(
    reader: Reader,
    repository: str,
    subject: str,
    artifact_types: frozenset[str],
    after: str | None,
    limit: int,
    bytes_max: int = 3 * 1024 * 1024,
) -> Referrers:
    """At most `limit` referrers of the subject after the digest `after`, of these types if any are named.

    A page of more than one is not much larger than `bytes_max`. A page may be empty although there is a next one.
    """
    found, tail, edge = reader.one(
        _PAGE,
        {
            "key": repository,
            "subject": subject,
            "after": after or "",
            # No manifest has a type with NUL, and the database would refuse it.
            "types": sorted(each for each in artifact_types if "\x00" not in each) if artifact_types else None,
            "limit": limit,
            "bytes": bytes_max,
        },
    )
    rows: Rows = {(row.repository, row.digest): row for row in (ReferrerRow(*each) for each in found or ())}
    for happened in reader.tail_of(tail):
        model.apply(rows, happened)
    wanted: list[ReferrerRow] = [
        row
        for _, row in sorted(rows.items())
        if row is not None and (not artifact_types or row.artifact_type in artifact_types)
    ]
    return Referrers(_whole(reader, wanted), edge)


def _whole(reader: Reader, rows: list[ReferrerRow]) -> list[Referrer]:
    """The rows with their annotations. Large ones come from the manifests, whose bytes never change."""
    large = [row.digest for row in rows if row.annotations_json is None]
    bodies = dict(reader.rows(_BODIES, {"digests": large})) if large else {}
    return [
        Referrer(
            row,
            annotations_of(bodies[row.digest]) if row.annotations_json is None else json.loads(row.annotations_json),
        )
        for row in rows
    ]
