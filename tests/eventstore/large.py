"""Makes a log of many rows by SQL, for tests and benches of what the keeper's rounds cost."""

import psycopg

from tests.postgres import Database

_CONTENTS = """
INSERT INTO log.es_content (digest, stored_at, body, facts)
SELECT 'sha256:' || md5(n::text) || md5((-n)::text), clock_timestamp() - n * interval '30 days' / %(rows)s, 'x', '{}'
  FROM generate_series(1, %(rows)s) AS n
"""
_EVENTS = """
INSERT INTO log.es_event (position, recorded_at, version, log_id, partition, schema_version, sets_ref, stream, key,
                          type, actor, request_id, content, data)
SELECT n, clock_timestamp() - (%(rows)s - n) * interval '30 days' / %(rows)s, 1, 0, 0, 1, false, 'manifest-r@' || n,
       'r', 'ManifestPushed', 'a', 'r', 'sha256:' || md5(n::text) || md5((-n)::text), '{}'
  FROM generate_series(1, %(rows)s) AS n
"""
_KEYS = """
INSERT INTO log.es_command_ring (part, log_id, id, recorded_at, result)
SELECT log.es_ring_part(m), 0, md5(n::text), m, '{}'
  FROM generate_series(1, %(rows)s) AS n,
       LATERAL (SELECT clock_timestamp() - n * interval '60 hours' / %(rows)s AS m) AS moment
"""
_CLIENTS = """
INSERT INTO log.es_client (first_position, last_position, recorded_at, log_id, address)
SELECT n, n, clock_timestamp() - (%(rows)s - n) * interval '30 days' / %(rows)s, 0, '192.0.2.1'
  FROM generate_series(1, %(rows)s) AS n
"""
_SETS = """
INSERT INTO log.es_set (digest, complete) SELECT md5(n::text), true FROM generate_series(1, %(rows)s) AS n
"""
_REFERENCES = """
INSERT INTO log.es_ref (log_id, target, from_stream)
SELECT 0, 'set-' || md5(n::text), 'manifest-r@' || n FROM generate_series(1, %(rows)s) AS n
"""


def make_large(database: Database, rows: int) -> None:
    """Make so many rows of each kind, of which none is to be removed.

    Contents that events name, and addresses, of the last 30 days; idempotency keys (the MD5 of their number) of the
    last 60 hours; sets that streams refer to.
    """
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for statement in (_CONTENTS, _EVENTS, _KEYS, _CLIENTS, _SETS, _REFERENCES):
            admin.execute(statement, {"rows": rows})
        admin.execute("VACUUM ANALYZE")
