-- Appends a batch of commands (rule: one command after another), each whole or not at all; answers one object a command.
-- The lock is taken before anything is read (rule: one lock): every later statement has a snapshot that holds all earlier appends,
-- because Postgres makes a commit visible before it releases the commit's locks. Held through the commit's flush.
-- The board, place and epoch are those of a process whose server keeps answers (see es_admit).
-- What a command appends to the history (log 0) and to the log of uploads (log 1) is one transaction. `in_log` is 1 if nothing
-- in the batch concerns the history. Otherwise its lock is taken first, then that of the uploads if one of the commands
-- concerns them (rule: two logs). No answer that is kept depends on a session, so those alone need no place on a board; and
-- they wake nobody, because a notification makes all commits of the cluster wait for each other.
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
-- The planner takes a statement over a partitioned table for the dearer the more parts it has, though only one is opened,
-- and would plan it again at each execution.
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    head bigint;
    head_time timestamptz;
    head_before bigint;
    known jsonb;
    -- The session of a command, or one that must not be there.
    uploads boolean := in_log = 1 OR jsonb_path_exists(batch, '$[*] ? (exists(@.session) || exists(@.nowhere))');
    upload_head record;
    standing record;
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
    IF in_log = 1 AND jsonb_path_exists(batch, '$[*] ? (exists(@.events) || exists(@.conditions))') THEN
        RAISE EXCEPTION 'a command that concerns the history is appended under its lock' USING ERRCODE = 'TT006';
    END IF;
    IF uploads AND in_log = 0 THEN
        PERFORM pg_advisory_xact_lock(4711, 1);
    END IF;
    IF in_log = 0 THEN
        PERFORM es_admit(in_log, by_board, by_place, by_epoch);
        SELECT e.position, e.recorded_at INTO head, head_time
          FROM es_event AS e WHERE e.log_id = in_log ORDER BY e.position DESC LIMIT 1;
    END IF;
    head := coalesce(head, 0);
    head_before := head;
    IF uploads THEN
        upload_head := es_upload_head();
    END IF;
    -- Set here: a function-level SET would be undone before the commit that it is meant for.
    PERFORM set_config('synchronous_commit', 'on', true);
    -- Keys of both logs stand together, so that a command is known in whatever batch it comes again.
    known := es_known_keys(0::smallint, batch);
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
        IF uploads THEN
            standing := es_upload_standing(command, upload_head.part, result);
            result := standing.refusal;
        END IF;
        IF result IS NOT NULL THEN
            results := results || json_build_object('refused', result);
            CONTINUE;
        END IF;
        IF command ? 'session' THEN
            upload_head.moment := greatest(upload_head.moment, (command->>'now')::timestamptz);
            result := es_write_session(command, upload_head.part, upload_head.place, upload_head.moment, standing);
            upload_head.place := (result->>'last')::bigint;
            moment := upload_head.moment;
        END IF;
        IF command ? 'events' THEN
            moment := greatest(head_time, (command->>'now')::timestamptz);
            result := es_write_events(in_log, command, head, moment);
            IF (result->>'last')::bigint > head THEN
                head := (result->>'last')::bigint;
                head_time := moment;
            END IF;
        END IF;
        results := results || json_build_object('appended', result);
        ids := ids || id;
        moments := moments || moment;
        outcomes := outcomes || result;
        -- Nothing is kept beside a session for longer than itself.
        addresses := addresses || CASE WHEN command ? 'events' THEN command->>'address' END;
        user_agents := user_agents || CASE WHEN command ? 'events' THEN command->>'user_agent' END;
    END LOOP;
    IF cardinality(ids) > 0 THEN
        PERFORM es_keep(0::smallint, ids, outcomes, moments, addresses, user_agents);
    END IF;
    -- Wakes projectors and relays that have nothing to do (eventstore/feed/bell.py).
    IF head > head_before THEN
        PERFORM pg_notify('es_event', '');
    END IF;
    RETURN array_to_json(results);
END $$;
