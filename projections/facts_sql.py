"""SQL for the part of a manifest's facts that folds need.

Facts name everything that a manifest names, up to 50,000 things, and those of older versions hold annotations of
megabytes. The rest never leaves the database (rule: bounded memory). `content` is the alias of a row of log.es_content.
"""

from domain.facts import ANNOTATIONS_BYTES_MAX, ANNOTATIONS_LEFT_OUT
from projections.model import Known

# The weight of facts of this kind, counted in references, against what memory may hold at a time.
_BRIEF_WEIGHT = 4


def facts_known(known: Known, content: str) -> str:
    """The facts as text, reduced to what a model of this kind looks at."""
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
    """The weight of the facts, counted in references."""
    if known is Known.REFERENCES:
        return f"coalesce(jsonb_array_length({content}.facts->'references'), 0)"
    return str(_BRIEF_WEIGHT)


def _brief(content: str) -> str:
    # The database writes some more spaces than we do, but never twice as many bytes. So everything that would fit
    # passes.
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
