-- The last position recorded at or before a moment, 0 if none: recorded_at never falls, so halving finds it.
CREATE OR REPLACE FUNCTION log.es_position_at(in_log smallint, moment timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = log, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    low bigint := 0;
    high bigint;
    middle bigint;
BEGIN
    SELECT coalesce(max(e.position), 0) INTO high FROM es_event AS e WHERE e.log_id = in_log;
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        -- Only the primary key has this order. So a plan that was made for an empty log uses no other index.
        IF (SELECT e.recorded_at FROM es_event AS e WHERE e.log_id = in_log AND e.position <= middle
             ORDER BY e.position DESC LIMIT 1) <= moment THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;

-- Erases up to `most` of the addresses and user agents recorded at or before a moment, the oldest first; answers the number
-- of their commands. They are found by position, because times rise with positions. So the index has no gaps to step over
-- except for rows that were erased since the table was last vacuumed.
CREATE OR REPLACE FUNCTION log.es_erase_clients(in_log smallint, before timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    upto bigint := es_position_at(in_log, before);
    erased integer;
BEGIN
    DELETE FROM es_client AS c
     WHERE c.log_id = in_log
       AND c.first_position = ANY (ARRAY(SELECT o.first_position FROM es_client AS o
                                          WHERE o.log_id = in_log AND o.first_position <= upto
                                          ORDER BY o.first_position LIMIT most));
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END $$;
