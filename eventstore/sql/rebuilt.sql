-- es_stream and es_ref as they must be by the events alone (rule: refs beside streams). `verify` compares them, and a
-- rebuild writes them.
CREATE OR REPLACE VIEW log.es_stream_rebuilt AS
SELECT e.log_id, e.stream,
       (array_agg(e.key ORDER BY e.position))[1] AS key,
       max(e.version) AS version,
       (array_agg(e.ref ORDER BY e.position DESC) FILTER (WHERE e.sets_ref))[1] AS ref,
       nullif((array_agg(e.state::text ORDER BY e.position DESC) FILTER (WHERE e.state IS NOT NULL))[1], 'null')::json
           AS state,
       min(e.position) AS first_position,
       max(e.position) AS last_position,
       max(e.recorded_at) AS recorded_at
  FROM log.es_event AS e
 GROUP BY e.log_id, e.stream;

CREATE OR REPLACE VIEW log.es_ref_rebuilt AS
SELECT last.log_id, target, last.stream AS from_stream
  FROM (SELECT DISTINCT ON (e.log_id, e.stream) e.log_id, e.stream, e.refers_to
          FROM log.es_event AS e
         WHERE e.refers_to IS NOT NULL
         ORDER BY e.log_id, e.stream, e.position DESC) AS last,
       unnest(last.refers_to) AS target;
