-- Answers the reason why a command is refused, judged before its own events, or null (rule: conditions under the lock).
-- Plans are cached while the tables are small and must serve large ones too (rule: plans of a grown log). So there are
-- subqueries and no joins (LIMIT keeps the planner from making a join of one). Where a table has two indexes that are
-- equally good on a few rows, EXECUTE makes a plan for the size that the table has now.
CREATE OR REPLACE FUNCTION log.es_refusal(in_log smallint, command jsonb) RETURNS json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    failed integer[];
    conflicts json;
    missing text[];
BEGIN
    IF command ? 'conditions' THEN
        SELECT array_agg(broken.condition) INTO failed FROM (
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
        ) AS broken;
        IF command->'conditions' ? 'unreferenced' THEN
            EXECUTE $q$
                SELECT array_cat($3, array_agg((c->>0)::integer))
                  FROM jsonb_array_elements($2) AS c
                 WHERE (SELECT r.from_stream FROM log.es_ref AS r WHERE r.log_id = $1 AND r.target = c->>1 LIMIT 1)
                           IS NOT NULL
                    OR EXISTS (SELECT FROM log.es_set_member AS m
                                 JOIN log.es_set AS s ON s.id = m.set_id AND s.complete
                                 JOIN log.es_ref AS r ON r.log_id = $1 AND r.target = 'set-' || s.digest
                                WHERE m.target = c->>1 AND m.refers)
            $q$ INTO failed USING in_log, command->'conditions'->'unreferenced', failed;
        END IF;
        IF command->'conditions' ? 'sets' THEN
            SELECT array_cat(failed, array_agg((c->>0)::integer)) INTO failed
              FROM jsonb_array_elements(command->'conditions'->'sets') AS c
             WHERE NOT log.es_set_holds(in_log, c->>1, c->>2, (c->>3)::bigint, c->>4);
        END IF;
        IF command->'conditions' ? 'at_most' THEN
            EXECUTE $q$
                SELECT array_cat($3, array_agg((c->>0)::integer))
                  FROM jsonb_array_elements($2) AS c
                 WHERE (SELECT count(*) FROM (
                            SELECT FROM log.es_stream AS s
                             WHERE s.log_id = $1 AND s.ref = c->>1 AND starts_with(s.stream, c->>2)
                             LIMIT (c->>3)::bigint + 1) AS found) > (c->>3)::bigint
            $q$ INTO failed USING in_log, command->'conditions'->'at_most', failed;
        END IF;
    END IF;
    IF command ? 'versions' THEN
        SELECT json_agg(json_build_array(v->>0, coalesce(s.version, 0), s.ref, s.state::text, s.recorded_at))
          INTO conflicts
          FROM jsonb_array_elements(command->'versions') AS v
          LEFT JOIN LATERAL (SELECT t.version, t.ref, t.state, t.recorded_at FROM log.es_stream AS t
                              WHERE t.log_id = in_log AND t.stream = v->>0 LIMIT 1) AS s ON true
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
