-- Idempotency keys stand in a ring of three partitions, of four days each: what is recorded in the first four days goes
-- to one, that of the next four to the next, and after the third the first is used again. Each is emptied as a whole when
-- its keys are old, which costs the same for any number of them and gives their room back at once. The ring is made
-- once: no partition is ever missing, and one that nobody emptied only keeps its keys for longer.
CREATE OR REPLACE FUNCTION log.es_ring_part(moment timestamptz) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
    SELECT ((floor(date_part('epoch', moment) / 345600)::bigint % 3 + 3) % 3)::smallint
$$;

-- What commands of the batch had come to that were appended before, by their keys: one question for all.
CREATE OR REPLACE FUNCTION log.es_known_keys(in_log smallint, batch jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    keys text[] := ARRAY(SELECT c->>'id' FROM jsonb_array_elements(batch) AS c);
    known jsonb := '{}';
    kept record;
BEGIN
    FOR kept IN
        SELECT k.id, k.result::jsonb AS result FROM log.es_command_ring AS k WHERE k.log_id = in_log AND k.id = ANY (keys)
        UNION ALL
        -- Keys from before the ring.
        SELECT k.id, k.result::jsonb FROM log.es_command AS k WHERE k.log_id = in_log AND k.id = ANY (keys)
    LOOP
        known := known || jsonb_build_object(kept.id, kept.result);
    END LOOP;
    RETURN known;
END $$;

-- Keeps the keys of commands that were appended, with what repeating one answers, and the addresses that they came from.
CREATE OR REPLACE FUNCTION log.es_keep(
    in_log smallint, keys text[], outcomes json[], moments timestamptz[], addresses text[], user_agents text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    part smallint := log.es_ring_part(moments[1]);
BEGIN
    INSERT INTO log.es_client (first_position, last_position, recorded_at, log_id, address, user_agent)
    SELECT (k.outcome->>'first')::bigint, (k.outcome->>'last')::bigint, k.moment, in_log, k.address, k.user_agent
      FROM unnest(outcomes, moments, addresses, user_agents) AS k (outcome, moment, address, user_agent)
     WHERE (k.address IS NOT NULL OR k.user_agent IS NOT NULL)
       AND (k.outcome->>'last')::bigint >= (k.outcome->>'first')::bigint;
    -- Each partition by its own statement: finding it by the ring costs more. Most often it is one.
    CASE WHEN EXISTS (SELECT FROM unnest(moments) AS m WHERE log.es_ring_part(m) <> part) THEN
        INSERT INTO log.es_command_ring (recorded_at, part, log_id, id, result)
        SELECT k.moment, log.es_ring_part(k.moment), in_log, k.key, k.outcome
          FROM unnest(moments, keys, outcomes) AS k (moment, key, outcome);
    WHEN part = 0 THEN INSERT INTO log.es_command_0 (recorded_at, part, log_id, id, result)
        SELECT k.moment, 0, in_log, k.key, k.outcome FROM unnest(moments, keys, outcomes) AS k (moment, key, outcome);
    WHEN part = 1 THEN INSERT INTO log.es_command_1 (recorded_at, part, log_id, id, result)
        SELECT k.moment, 1, in_log, k.key, k.outcome FROM unnest(moments, keys, outcomes) AS k (moment, key, outcome);
    ELSE INSERT INTO log.es_command_2 (recorded_at, part, log_id, id, result)
        SELECT k.moment, 2, in_log, k.key, k.outcome FROM unnest(moments, keys, outcomes) AS k (moment, key, outcome);
    END CASE;
END $$;

-- Partitions of the ring that may hold keys to be kept: those of the time from `kept` before the logs' newest moment,
-- which may be ahead of all clocks, to a day after it.
CREATE OR REPLACE FUNCTION log.es_ring_in_use(in_log smallint, kept interval, moment timestamptz) RETURNS smallint[]
LANGUAGE plpgsql STABLE SET search_path = log, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    newest timestamptz;
BEGIN
    SELECT greatest(moment, max(h.recorded_at)) INTO newest
      FROM (SELECT max(e.recorded_at)
              FROM (SELECT t.recorded_at FROM es_event AS t WHERE t.log_id = in_log ORDER BY t.position DESC LIMIT 1) AS e
             UNION ALL SELECT u.moment FROM es_upload_head() AS u) AS h (recorded_at);
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
-- use it too, must not wait. The caller holds the append locks, so it is never an append.
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
    -- Both logs keep their keys here.
    PERFORM pg_advisory_xact_lock(4711, in_log);
    PERFORM pg_advisory_xact_lock(4711, 1);
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
