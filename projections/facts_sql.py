"""The part of a manifest's facts that folds are told, as SQL: the little that they need, whatever the facts hold.

Facts name everything that a manifest names, up to 50,000 things, and those of older versions hold annotations of
megabytes. What is left out here never leaves the database. `content` is the alias of a row of log.es_content.
"""

from domain.facts import ANNOTATIONS_BYTES_MAX, ANNOTATIONS_LEFT_OUT
from projections.model import Known

# How much one needs of what memory may hold at a time, counted in references.
_BRIEF_WEIGHT = 4


def facts_known(known: Known, content: str) -> str:
    """The facts as text, as far as a model of this kind looks at them."""
    match known:
        case Known.BRIEF:
            return _brief(content)
        case Known.REFERENCES:
            return _references(content, f"{content}.facts->'references'")
    return "NULL::text"


def facts_of_digest(content: str) -> str:
    """The facts as text, with no other references than those to %(digest)s."""
    only = (
        f"jsonb_path_query_array({content}.facts->'references', '$[*] ? (@.digest == $wanted)',"
        " jsonb_build_object('wanted', %(digest)s::text))"
    )
    return _references(content, only)


def weight(known: Known, content: str) -> str:
    """How much they take, counted in references."""
    if known is Known.REFERENCES:
        return f"coalesce(jsonb_array_length({content}.facts->'references'), 0)"
    return str(_BRIEF_WEIGHT)


def _brief(content: str) -> str:
    # The database writes a space more than we do for each pair and member, never twice as much: what would fit passes.
    return f"""(
    SELECT jsonb_build_object(
               'kind', x.kind, 'artifact_type', x.artifact_type, 'platform', x.platform, 'created', x.created,
               'size', coalesce(x.size, 0),
               'references', jsonb_path_query_array(x."references", '$[*] ? (@.role == "config")'),
               'annotations', CASE WHEN coalesce(octet_length(x.annotations::text), 0) <= {2 * ANNOTATIONS_BYTES_MAX}
                                   THEN coalesce(x.annotations, '{{}}')
                                   ELSE jsonb_build_object('{ANNOTATIONS_LEFT_OUT}', '') END)::text
      FROM jsonb_to_record({content}.facts) AS x(
               kind text, artifact_type text, platform text, created text, size bigint, annotations jsonb,
               "references" jsonb))"""  # noqa: S608 - put together from constants


def _references(content: str, elements: str) -> str:
    return f"""(
    SELECT jsonb_build_object('kind', '', 'references', coalesce(jsonb_agg(jsonb_build_object(
               'role', r.one->'role', 'digest', r.one->'digest', 'media_type', '') ORDER BY r.place), '[]'))::text
      FROM jsonb_array_elements({elements}) WITH ORDINALITY AS r(one, place)
     WHERE {content}.facts IS NOT NULL)"""  # noqa: S608 - put together from constants
