-- Idempotency keys stand in a ring of three partitions, of four days each: what is recorded in the first four days goes
-- to one, that of the next four to the next, and after the third the first is used again. Each is emptied as a whole when
-- its keys are old, which costs the same for any number of them and gives their room back at once. The ring is made
-- once: no partition is ever missing, and one that nobody emptied only keeps its keys for longer.
CREATE OR REPLACE FUNCTION log.es_ring_part(moment timestamptz) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
    SELECT ((floor(date_part('epoch', moment) / 345600)::bigint % 3 + 3) % 3)::smallint
$$;

-- Writes a key. Each partition by its own statement: finding it by the ring costs an append a tenth of its time.
CREATE OR REPLACE FUNCTION log.es_keep_key(in_log smallint, key text, moment timestamptz, outcome json) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    part smallint := log.es_ring_part(moment);
BEGIN
    CASE part
    WHEN 0 THEN INSERT INTO log.es_command_0 (recorded_at, part, log_id, id, result)
                VALUES (moment, part, in_log, key, outcome);
    WHEN 1 THEN INSERT INTO log.es_command_1 (recorded_at, part, log_id, id, result)
                VALUES (moment, part, in_log, key, outcome);
    WHEN 2 THEN INSERT INTO log.es_command_2 (recorded_at, part, log_id, id, result)
                VALUES (moment, part, in_log, key, outcome);
    END CASE;
END $$;

-- Partitions of the ring that may hold keys to be kept: those of the time from `kept` before the log's newest moment,
-- which may be ahead of all clocks, to a day after it.
CREATE OR REPLACE FUNCTION log.es_ring_in_use(in_log smallint, kept interval, moment timestamptz) RETURNS smallint[]
LANGUAGE plpgsql STABLE SET search_path = log, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    newest timestamptz;
BEGIN
    SELECT greatest(moment, max(h.recorded_at)) INTO newest
      FROM (SELECT e.recorded_at FROM es_event AS e WHERE e.log_id = in_log ORDER BY e.position DESC LIMIT 1) AS h;
    RETURN ARRAY(SELECT DISTINCT es_ring_part(least(t, newest + interval '1 day'))
                   FROM generate_series(newest - kept, newest + interval '5 days', interval '4 days') AS t);
END $$;

-- Partitions whose keys are all older than `kept`, counted back from the log's newest moment or `moment`, the later one,
-- and which are not empty.
CREATE OR REPLACE FUNCTION log.es_ring_over(in_log smallint, kept interval, moment timestamptz) RETURNS smallint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    in_use smallint[] := es_ring_in_use(in_log, kept, moment);
    over smallint[] := '{}';
    filled boolean;
BEGIN
    FOR part IN 0..2 LOOP
        IF part <> ALL (in_use) THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM log.es_command_%s)', part) INTO filled;
            IF filled THEN
                over := over || part::smallint;
            END IF;
        END IF;
    END LOOP;
    RETURN over;
END $$;

-- Empties a table of keys; false if somebody else uses it this moment, a backup for example, for which appends, which
-- use it too, must not wait. The caller holds the append lock, so it is never an append.
CREATE OR REPLACE FUNCTION log.es_empty_keys(relation text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('LOCK TABLE log.%I IN ACCESS EXCLUSIVE MODE NOWAIT', relation);
    EXECUTE format('TRUNCATE log.%I', relation);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;

-- Forgets idempotency keys that are older than `kept` (see es_ring_over), a partition at a time; answers how many
-- partitions were emptied.
CREATE OR REPLACE FUNCTION log.es_forget_commands(in_log smallint, kept interval, moment timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    over smallint[] := es_ring_over(in_log, kept, moment);
    -- What was there before the ring gets no more keys: it is over once its last one is old.
    before_the_ring boolean := (SELECT true FROM es_command LIMIT 1) IS NOT NULL
        AND NOT EXISTS (SELECT FROM es_command AS k WHERE k.recorded_at >= moment - kept);
    part smallint;
    emptied integer := 0;
BEGIN
    IF cardinality(over) = 0 AND NOT before_the_ring THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(4711, in_log);
    FOREACH part IN ARRAY over LOOP
        emptied := emptied + es_empty_keys('es_command_' || part)::integer;
    END LOOP;
    IF before_the_ring THEN
        emptied := emptied + es_empty_keys('es_command')::integer;
    END IF;
    RETURN emptied;
END $$;

-- The same, as processes of the release before ask for it: they keep keys for three days.
CREATE OR REPLACE FUNCTION log.es_forget_commands(in_log smallint, before timestamptz) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
    SELECT es_forget_commands(in_log, interval '3 days', before + interval '3 days')
$$;
