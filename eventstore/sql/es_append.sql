-- Appends a batch of commands (rule: one command after another), each whole or not at all; answers one object a command.
-- The lock is taken before anything is read (rule: one lock): every later statement has a snapshot that holds all earlier appends,
-- because Postgres makes a commit visible before it releases the commit's locks. Held through the commit's flush.
-- The board, place and epoch are those of a process whose server keeps answers (see es_admit).
CREATE OR REPLACE FUNCTION log.es_append(
    in_log smallint, batch jsonb, allow_clock_skew boolean,
    by_board text DEFAULT NULL, by_place smallint DEFAULT NULL, by_epoch bigint DEFAULT NULL
) RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = log, pg_catalog, pg_temp
-- Plans are cached while the tables are small; an index probe must stay one as they grow (rule: plans of a grown log).
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    head bigint;
    head_time timestamptz;
    head_before bigint;
    known jsonb;
    command jsonb;
    id text;
    moment timestamptz;
    result json;
    results json[] := '{}';
    -- Of the commands that are appended: what is kept of them is written once for all.
    ids text[] := '{}';
    moments timestamptz[] := '{}';
    outcomes json[] := '{}';
    addresses text[] := '{}';
    user_agents text[] := '{}';
BEGIN
    PERFORM pg_advisory_xact_lock(4711, in_log);
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'es_append must run at READ COMMITTED, not %', current_setting('transaction_isolation')
            USING ERRCODE = 'TT001';
    END IF;
    PERFORM es_admit(in_log, by_board, by_place, by_epoch);
    -- Set here: a function-level SET would be undone before the commit that it is meant for.
    PERFORM set_config('synchronous_commit', 'on', true);
    SELECT e.position, e.recorded_at INTO head, head_time
      FROM es_event AS e WHERE e.log_id = in_log ORDER BY e.position DESC LIMIT 1;
    head := coalesce(head, 0);
    head_before := head;
    known := es_known_keys(in_log, batch);
    FOR command IN SELECT c FROM jsonb_array_elements(batch) AS c LOOP
        id := command->>'id';
        IF known ? id THEN
            results := results || json_build_object('repeated', known->id);
            CONTINUE;
        ELSIF id = ANY (ids) THEN
            results := results || json_build_object('repeated', outcomes[array_position(ids, id)]);
            CONTINUE;
        END IF;
        IF NOT allow_clock_skew AND (command->>'now')::timestamptz > clock_timestamp() + interval '5 minutes' THEN
            RAISE EXCEPTION 'the clock of command % is more than 5 minutes ahead of the database', id
                USING ERRCODE = 'TT002';
        END IF;
        result := es_refusal(in_log, command);
        IF result IS NOT NULL THEN
            results := results || json_build_object('refused', result);
            CONTINUE;
        END IF;
        moment := greatest(head_time, (command->>'now')::timestamptz);
        result := es_write_events(in_log, command, head, moment);
        results := results || json_build_object('appended', result);
        ids := ids || id;
        moments := moments || moment;
        outcomes := outcomes || result;
        addresses := addresses || (command->>'address');
        user_agents := user_agents || (command->>'user_agent');
        IF (result->>'last')::bigint > head THEN
            head := (result->>'last')::bigint;
            head_time := moment;
        END IF;
    END LOOP;
    IF cardinality(ids) > 0 THEN
        PERFORM es_keep(in_log, ids, outcomes, moments, addresses, user_agents);
    END IF;
    -- Wakes projectors and relays that have nothing to do (eventstore/feed/bell.py).
    IF head > head_before THEN
        PERFORM pg_notify('es_event', '');
    END IF;
    RETURN array_to_json(results);
END $$;
