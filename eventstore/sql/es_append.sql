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
    command jsonb;
    result json;
    results json[] := '{}';
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
    FOR command IN SELECT c FROM jsonb_array_elements(batch) AS c LOOP
        SELECT k.result INTO result FROM es_command_ring AS k WHERE k.log_id = in_log AND k.id = command->>'id';
        IF NOT FOUND THEN
            -- Keys from before the ring.
            SELECT k.result INTO result FROM es_command AS k WHERE k.log_id = in_log AND k.id = command->>'id';
        END IF;
        IF FOUND THEN
            results := results || json_build_object('repeated', result);
            CONTINUE;
        END IF;
        IF NOT allow_clock_skew AND (command->>'now')::timestamptz > clock_timestamp() + interval '5 minutes' THEN
            RAISE EXCEPTION 'the clock of command % is more than 5 minutes ahead of the database', command->>'id'
                USING ERRCODE = 'TT002';
        END IF;
        result := es_refusal(in_log, command);
        IF result IS NOT NULL THEN
            results := results || json_build_object('refused', result);
            CONTINUE;
        END IF;
        result := es_write(in_log, command, head, greatest(head_time, (command->>'now')::timestamptz));
        results := results || json_build_object('appended', result);
        IF (result->>'last')::bigint > head THEN
            head := (result->>'last')::bigint;
            head_time := (result->>'recorded_at')::timestamptz;
        END IF;
    END LOOP;
    -- Wakes projectors and relays that have nothing to do (eventstore/feed/bell.py).
    IF head > head_before THEN
        PERFORM pg_notify('es_event', '');
    END IF;
    RETURN array_to_json(results);
END $$;
