-- What speaks against a command, judged on what stands before its own events: null if nothing does (S4, S5, S12).
-- Scalar subqueries keep every check an index probe, whatever the planner knew when the plan was cached.
CREATE OR REPLACE FUNCTION log.es_refusal(in_log smallint, command jsonb) RETURNS json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    failed integer[];
    conflicts json;
    missing text[];
BEGIN
    IF command ? 'conditions' THEN
        SELECT array_agg(broken.condition ORDER BY broken.condition) INTO failed FROM (
            SELECT (c->>0)::integer AS condition
              FROM jsonb_array_elements(command->'conditions'->'is') AS c
             GROUP BY 1
            HAVING bool_and(c->>2 IS DISTINCT FROM
                       (SELECT s.ref FROM log.es_stream AS s WHERE s.log_id = in_log AND s.stream = c->>1))
            UNION ALL
            SELECT (c->>0)::integer
              FROM jsonb_array_elements(command->'conditions'->'is_not') AS c
             WHERE c->>2 IS NOT DISTINCT FROM
                       (SELECT s.ref FROM log.es_stream AS s WHERE s.log_id = in_log AND s.stream = c->>1)
            UNION ALL
            SELECT (c->>0)::integer
              FROM jsonb_array_elements(command->'conditions'->'unreferenced') AS c
             WHERE (SELECT r.from_stream FROM log.es_ref AS r WHERE r.log_id = in_log AND r.target = c->>1 LIMIT 1)
                       IS NOT NULL
        ) AS broken;
    END IF;
    IF command ? 'versions' THEN
        SELECT json_agg(json_build_array(v->>0, coalesce(s.version, 0), s.ref, s.state::text, s.recorded_at))
          INTO conflicts
          FROM jsonb_array_elements(command->'versions') AS v
          LEFT JOIN log.es_stream AS s ON s.log_id = in_log AND s.stream = v->>0
         WHERE coalesce(s.version, 0) <> (v->>1)::integer;
    END IF;
    IF command ? 'contents' THEN
        SELECT array_agg(d) INTO missing
          FROM jsonb_array_elements_text(command->'contents') AS d
         WHERE (SELECT c.digest FROM log.es_content AS c WHERE c.digest = d) IS NULL;
    END IF;
    IF failed IS NULL AND conflicts IS NULL AND missing IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN json_build_object('failed', failed, 'conflicts', conflicts, 'missing', missing);
END $$;
