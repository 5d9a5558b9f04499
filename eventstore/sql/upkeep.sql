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
        -- The order, which only the primary key has, keeps a plan made for an empty log off the other indexes.
        IF (SELECT e.recorded_at FROM es_event AS e WHERE e.log_id = in_log AND e.position <= middle
             ORDER BY e.position DESC LIMIT 1) <= moment THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;

-- Forgets the idempotency keys of commands recorded before a moment; answers how many.
CREATE OR REPLACE FUNCTION log.es_forget_commands(in_log smallint, before timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    forgotten bigint;
BEGIN
    DELETE FROM es_command AS k WHERE k.log_id = in_log AND k.recorded_at < before;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;

-- Erases the addresses and user agents recorded before a moment; answers how many commands had any.
CREATE OR REPLACE FUNCTION log.es_erase_clients(in_log smallint, before timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    erased bigint;
BEGIN
    DELETE FROM es_client AS c WHERE c.log_id = in_log AND c.recorded_at < before;
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END $$;
