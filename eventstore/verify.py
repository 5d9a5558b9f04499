"""Checks that the logs are whole and agree with the tables beside them (rule: refs beside streams).

Those tables can be made anew from the events.
"""

from dataclasses import dataclass

import psycopg

from eventstore.schema import APPEND_LOCK, connected
from eventstore.types import HISTORY, UPLOADS

FAULTS_MAX = 100

_POSITIONS = """
SELECT 'position ' || position, CASE
         WHEN position <> place THEN 'the log has a hole before it'
         ELSE 'it is recorded earlier than the event before it' END
  FROM (SELECT e.position, e.recorded_at, row_number() OVER (ORDER BY e.position) AS place,
               lag(e.recorded_at) OVER (ORDER BY e.position) AS before
          FROM log.es_event AS e WHERE e.log_id = %(log)s) AS placed
 WHERE position <> place OR recorded_at < before
 ORDER BY position LIMIT %(most)s
"""
_VERSIONS = """
SELECT 'stream ' || stream, 'version ' || version || ' stands in place ' || place
  FROM (SELECT e.stream, e.version, row_number() OVER (PARTITION BY e.stream ORDER BY e.position) AS place
          FROM log.es_event AS e WHERE e.log_id = %(log)s) AS placed
 WHERE version <> place
 ORDER BY stream, place LIMIT %(most)s
"""
_PREVIOUS_REFS = """
SELECT 'position ' || position, 'prev_ref is ' || coalesce(prev_ref, 'nothing') || ', the events before it say '
       || coalesce(expected, 'nothing')
  FROM (SELECT e.position, e.prev_ref,
               (SELECT p.ref FROM log.es_event AS p
                 WHERE p.log_id = e.log_id AND p.stream = e.stream AND p.version < e.version AND p.sets_ref
                 ORDER BY p.version DESC LIMIT 1) AS expected
          FROM log.es_event AS e WHERE e.log_id = %(log)s) AS compared
 WHERE prev_ref IS DISTINCT FROM expected
 ORDER BY position LIMIT %(most)s
"""
_STREAMS = """
SELECT 'stream ' || stream, CASE
         WHEN kept IS NULL THEN 'es_stream lacks it'
         WHEN events IS NULL THEN 'es_stream has it, the log has not'
         ELSE 'es_stream has ' || kept || ', the events say ' || events END
  FROM (SELECT s.stream, row_to_json(s)::text AS kept
          FROM (SELECT t.stream, t.key, t.version, t.ref, t.state, t.first_position, t.last_position, t.recorded_at
                  FROM log.es_stream AS t WHERE t.log_id = %(log)s) AS s) AS a
  FULL JOIN
       (SELECT r.stream, row_to_json(r)::text AS events
          FROM (SELECT t.stream, t.key, t.version, t.ref, t.state, t.first_position, t.last_position, t.recorded_at
                  FROM log.es_stream_rebuilt AS t WHERE t.log_id = %(log)s) AS r) AS b USING (stream)
 WHERE kept IS DISTINCT FROM events
 ORDER BY stream LIMIT %(most)s
"""
_REFS = """
SELECT 'reference from ' || from_stream || ' to ' || target, CASE
         WHEN kept THEN 'es_ref has it, the events have not' ELSE 'es_ref lacks it' END
  FROM (SELECT r.target, r.from_stream, true AS kept FROM log.es_ref AS r WHERE r.log_id = %(log)s) AS a
  FULL JOIN
       (SELECT r.target, r.from_stream, true AS said FROM log.es_ref_rebuilt AS r WHERE r.log_id = %(log)s) AS b
       USING (target, from_stream)
 WHERE kept IS NULL OR said IS NULL
 ORDER BY from_stream, target LIMIT %(most)s
"""
_SETS = """
SELECT 'reference from ' || r.from_stream || ' to ' || r.target, 'the set is missing or not whole'
  FROM log.es_ref AS r
 WHERE r.log_id = %(log)s AND starts_with(r.target, 'set-')
   AND NOT EXISTS (SELECT FROM log.es_set AS s WHERE s.digest = substr(r.target, 5) AND s.complete)
 ORDER BY r.from_stream LIMIT %(most)s
"""
_CONTENT = """
SELECT 'position ' || e.position, 'its content ' || e.content || ' is missing'
  FROM log.es_event AS e
 WHERE e.log_id = %(log)s AND e.content IS NOT NULL
   AND NOT EXISTS (SELECT FROM log.es_content AS c WHERE c.digest = e.content)
 ORDER BY e.position LIMIT %(most)s
"""
# The log of uploads begins where its oldest part does. A stream that began before that is not judged.
_UPLOAD_POSITIONS = """
SELECT 'position ' || position || ' of the log of uploads', CASE
         WHEN position <> place THEN 'the log has a hole before it'
         WHEN part <> belongs THEN 'it stands in part ' || part || ', not in part ' || belongs
         ELSE 'it is recorded earlier than the event before it' END
  FROM (SELECT e.position, e.recorded_at, e.part, p.part AS belongs, lag(e.recorded_at) OVER inorder AS before,
               row_number() OVER inorder - 1 + (SELECT min(f.first_position) FROM log.es_upload_part AS f) AS place
          FROM log.es_upload_event AS e
          LEFT JOIN (SELECT u.part, u.first_position, lead(u.first_position) OVER (ORDER BY u.part) AS beyond
                       FROM log.es_upload_part AS u) AS p
            ON e.position >= p.first_position AND (p.beyond IS NULL OR e.position < p.beyond)
        WINDOW inorder AS (ORDER BY e.position)) AS placed
 WHERE position <> place OR recorded_at < before OR part IS DISTINCT FROM belongs
 ORDER BY position LIMIT %(most)s
"""
_UPLOAD_EVENTS = """
SELECT 'stream ' || stream, CASE
         WHEN version <> place THEN 'version ' || version || ' stands in place ' || place
         ELSE 'prev_ref of version ' || version || ' is ' || coalesce(prev_ref, 'nothing') || ', the events before say '
              || coalesce(expected, 'nothing') END
  FROM (SELECT stream, version, prev_ref, place, oldest, refs[array_upper(refs, 1)] AS expected
          FROM (SELECT e.stream, e.version, e.prev_ref,
                       row_number() OVER (PARTITION BY e.stream ORDER BY e.position) AS place,
                       min(e.version) OVER (PARTITION BY e.stream) AS oldest,
                       array_agg(e.ref) FILTER (WHERE e.sets_ref) OVER (PARTITION BY e.stream ORDER BY e.position
                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS refs
                  FROM log.es_upload_event AS e) AS numbered) AS compared
 WHERE oldest = 1 AND (version <> place OR prev_ref IS DISTINCT FROM expected)
 ORDER BY stream, place LIMIT %(most)s
"""
_UPLOAD_STREAMS = """
SELECT 'stream ' || stream, CASE
         WHEN kept IS NULL THEN 'es_upload_stream lacks it'
         WHEN events IS NULL THEN 'es_upload_stream has it, the log has not'
         ELSE 'es_upload_stream has ' || kept || ', the events say ' || events END
  FROM (SELECT s.stream, row_to_json(s)::text AS kept
          FROM (SELECT t.stream, t.part, t.key, t.version, t.ref, t.state, t.first_position, t.last_position,
                       t.recorded_at FROM log.es_upload_stream AS t) AS s) AS a
  FULL JOIN
       (SELECT r.stream, row_to_json(r)::text AS events
          FROM (SELECT t.stream, t.part, t.key, t.version, t.ref, t.state, t.first_position, t.last_position,
                       t.recorded_at FROM log.es_upload_stream_rebuilt AS t) AS r) AS b USING (stream)
 WHERE kept IS DISTINCT FROM events
 ORDER BY stream LIMIT %(most)s
"""
_HISTORY_QUERIES = (_POSITIONS, _VERSIONS, _PREVIOUS_REFS, _STREAMS, _REFS, _SETS, _CONTENT)
_UPLOAD_QUERIES = (_UPLOAD_POSITIONS, _UPLOAD_EVENTS, _UPLOAD_STREAMS)


@dataclass(frozen=True, slots=True)
class Fault:
    """One difference from the events: its subject and its kind."""

    about: str
    what: str


def verify(url: str, *, faults_max: int = FAULTS_MAX) -> list[Fault]:
    """The faults of the logs and of the tables beside them, at one moment.

    This reads the logs whole while appends go on. It lists at most `faults_max` faults of each kind.
    """
    parameters = {"log": HISTORY, "most": faults_max}
    faults: list[Fault] = []
    with connected(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.autocommit = False
        for query in (*_HISTORY_QUERIES, *_UPLOAD_QUERIES):
            faults.extend(Fault(*row) for row in connection.execute(query, parameters))
    return faults


def rebuild(owner_url: str) -> None:
    """Write what is kept beside both logs anew from the events; appends wait until it is done."""
    with connected(owner_url) as connection, connection.transaction():
        for each in (HISTORY, UPLOADS):
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (APPEND_LOCK, each))
        connection.execute("DELETE FROM log.es_stream WHERE log_id = %s", (HISTORY,))
        connection.execute(
            "INSERT INTO log.es_stream (log_id, stream, key, version, ref, state, first_position, last_position,"
            " recorded_at) SELECT r.log_id, r.stream, r.key, r.version, r.ref, r.state, r.first_position,"
            " r.last_position, r.recorded_at FROM log.es_stream_rebuilt AS r WHERE r.log_id = %s",
            (HISTORY,),
        )
        connection.execute("DELETE FROM log.es_ref WHERE log_id = %s", (HISTORY,))
        connection.execute(
            "INSERT INTO log.es_ref (log_id, target, from_stream)"
            " SELECT r.log_id, r.target, r.from_stream FROM log.es_ref_rebuilt AS r WHERE r.log_id = %s",
            (HISTORY,),
        )
        # References to sets may have changed, so the next sweep looks at each set once.
        connection.execute(
            "UPDATE log.es_set SET idle_since = clock_timestamp() WHERE digest IS NOT NULL AND idle_since IS NULL"
        )
        connection.execute("DELETE FROM log.es_upload_stream")
        connection.execute(
            "INSERT INTO log.es_upload_stream (log_id, part, stream, key, version, ref, state, first_position,"
            " last_position, recorded_at) SELECT %s, r.part, r.stream, r.key, r.version, r.ref, r.state,"
            " r.first_position, r.last_position, r.recorded_at FROM log.es_upload_stream_rebuilt AS r",
            (UPLOADS,),
        )
