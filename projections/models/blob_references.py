"""Blob references: the manifests that name a blob, as a set of (digest, repository, manifest), never a counter."""

from collections.abc import Iterable
from dataclasses import dataclass

from domain.manifest import ManifestDeleted, ManifestPushed
from projections.columns import Name, table_of
from projections.facts_sql import facts_of_digest
from projections.model import Happened, Key, Known, Model, Rows
from projections.models import links
from projections.reader import Reader, log_tail


@dataclass(frozen=True, slots=True)
class BlobReferenceRow:
    """A manifest of a repository names the digest, as `role` ("config", "layer", "child" or "blob")."""

    digest: Name
    repository: Name
    manifest: Name
    role: str


table = table_of(BlobReferenceRow, "blob_references_s1", ("digest", "repository", "manifest"))


def _touched(happened: Happened) -> Iterable[Key]:
    match happened.event:
        case ManifestPushed(repository, digest) | ManifestDeleted(repository, digest) if happened.facts is not None:
            return [(each.digest, repository, digest) for each in happened.facts.references]
    return ()


def _fold(rows: Rows, happened: Happened) -> None:
    if happened.facts is None:
        return
    match happened.event:
        case ManifestPushed(repository, digest):
            # If a manifest names a digest twice, the first role counts.
            for each in reversed(happened.facts.references):
                rows[each.digest, repository, digest] = BlobReferenceRow(each.digest, repository, digest, each.role)
        case ManifestDeleted(repository, digest):
            for each in happened.facts.references:
                rows[each.digest, repository, digest] = None


_SET_FOLD = """
SELECT named.digest, e.key, e.data->>'digest', named.role
  FROM range_event AS e
 CROSS JOIN LATERAL (
       SELECT DISTINCT ON (each.one->>'digest') each.one->>'digest' AS digest, each.one->>'role' AS role
         FROM jsonb_array_elements(e.facts->'references') WITH ORDINALITY AS each(one, place)
        ORDER BY each.one->>'digest', each.place) AS named
 WHERE e.type = 'ManifestPushed' AND e.is_last
"""
model = Model(
    "blob_references",
    1,
    table,
    BlobReferenceRow,
    frozenset({ManifestPushed.TYPE, ManifestDeleted.TYPE}),
    _touched,
    _fold,
    _SET_FOLD,
    known=Known.REFERENCES,
)


@dataclass(frozen=True, slots=True)
class BlobReferences:
    """The users of a blob: `count` manifests in all; a page of them as (repository, manifest, role); repositories.

    If `count_exact` is false there are more manifests than `count`. `more` says that another page follows, and
    `more_repositories` that other repositories link the blob.
    """

    digest: str
    count: int
    count_exact: bool
    repositories: list[str]
    more_repositories: bool
    manifests: list[tuple[str, str, str]]
    more: bool


_REFERENCES = f"""
WITH tail AS MATERIALIZED (
     SELECT DISTINCT ON (t.key, t.content) t.* FROM (
{log_tail("blob_references_s1", "e.type IN ('ManifestPushed', 'ManifestDeleted')", facts=facts_of_digest("f"))}
     ) AS t WHERE (t.item->>9)::json #> '{{references,0}}' IS NOT NULL ORDER BY t.key, t.content, t.position DESC
), folded AS NOT MATERIALIZED (
     SELECT b.repository, b.manifest, b.role FROM readmodel.blob_references_s1 AS b
      WHERE b.digest = %(digest)s AND (b.repository, b.manifest) NOT IN (SELECT tail.key, tail.content FROM tail)
)
SELECT (SELECT count(*) FROM (SELECT FROM folded LIMIT %(count_max)s + 1) AS first)
         + (SELECT count(*) FROM tail WHERE tail.type = 'ManifestPushed'),
       (SELECT json_agg(json_build_array(p.repository, p.manifest, p.role)) FROM (
            SELECT * FROM folded AS f WHERE (f.repository, f.manifest) > (%(repository)s, %(manifest)s)
             ORDER BY f.repository, f.manifest LIMIT %(limit)s + 1) AS p),
       (SELECT json_agg(new.item ORDER BY new.position) FROM (
            SELECT tail.* FROM tail
             WHERE tail.type = 'ManifestPushed' AND (tail.key, tail.content) > (%(repository)s, %(manifest)s)
             ORDER BY tail.key, tail.content LIMIT %(limit)s + 1) AS new)
"""  # noqa: S608 - put together from constants; values go as parameters

REPOSITORIES_MAX = 1000
# Any number of manifests may name a base layer, and a count of all would read them all.
COUNT_MAX = 10_000


def references(reader: Reader, digest: str, after: tuple[str, str] | None, limit: int) -> BlobReferences:
    """The users of the blob: at most `limit` manifests after (repository, manifest) `after`, in bytewise order."""
    start = after or ("", "")
    asked = {"digest": digest, "repository": start[0], "manifest": start[1], "limit": limit, "count_max": COUNT_MAX}
    count, found, tail = reader.one(_REFERENCES, asked)
    rows: Rows = {(digest, each[0], each[1]): BlobReferenceRow(digest, *each) for each in found or ()}
    reader.overlay(model, rows, tail)
    listed = sorted((row.repository, row.manifest, row.role) for row in rows.values() if row is not None)
    repositories = links.repositories_of(reader, digest, "", REPOSITORIES_MAX + 1)
    return BlobReferences(
        digest=digest,
        count=min(count, COUNT_MAX),
        count_exact=count <= COUNT_MAX,
        repositories=repositories[:REPOSITORIES_MAX],
        more_repositories=len(repositories) > REPOSITORIES_MAX,
        manifests=listed[:limit],
        more=len(listed) > limit,
    )
