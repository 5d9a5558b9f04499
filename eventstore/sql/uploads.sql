-- The log of uploads, log 1: sessions are no history and go after some days (rule: two logs). Its tables are partitioned by
-- `part`. The events of a part are a range of positions, from es_upload_part.first_position up to that of the next part, and
-- only the last part is written. A stream stands in the part in which it began, so that it goes together with that part.

-- The part that is written, and the position and time of this log's last event. The caller holds the lock of this log.
CREATE OR REPLACE FUNCTION log.es_upload_head(OUT part integer, OUT place bigint, OUT moment timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    newest record;
BEGIN
    SELECT p.part, p.first_position, p.begun_after INTO newest
      FROM log.es_upload_part AS p ORDER BY p.part DESC LIMIT 1;
    part := newest.part;
    SELECT e.position, e.recorded_at INTO place, moment
      FROM log.es_upload_event AS e WHERE e.part = newest.part ORDER BY e.position DESC LIMIT 1;
    IF NOT FOUND THEN
        place := newest.first_position - 1;
        moment := newest.begun_after;
    END IF;
END $$;

-- The session that a command goes on with, as it stands, and why the command is refused: what `refusal` says already, and
-- each stream that stands elsewhere than the command says. A stream of which there must be nothing may stand in either log,
-- because sessions went to the history before. Whoever begins a session, there or here, holds the lock of this log. One that
-- has begun stands most often in the part that is written, `newest`, so the others are asked only if it does not.
CREATE OR REPLACE FUNCTION log.es_upload_standing(
    command jsonb, newest integer, INOUT refusal json, OUT part integer, OUT version integer, OUT ref text, OUT state json
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    name text := coalesce(command->'session'->>'stream', command->>'nowhere');
    expected integer := coalesce((command->'session'->>'version')::integer,
                                 CASE WHEN command ? 'nowhere' THEN 0 END);
    found_in integer := 1;
    moment timestamptz;
BEGIN
    IF name IS NULL THEN
        RETURN;
    END IF;
    IF expected > 0 THEN
        SELECT s.part, s.version, s.ref, s.state, s.recorded_at INTO part, version, ref, state, moment
          FROM log.es_upload_stream AS s WHERE s.part = newest AND s.stream = name;
    END IF;
    IF version IS NULL THEN
        SELECT s.part, s.version, s.ref, s.state, s.recorded_at INTO part, version, ref, state, moment
          FROM log.es_upload_stream AS s WHERE s.stream = name LIMIT 1;
    END IF;
    IF version IS NULL AND expected = 0 AND command ? 'session' THEN
        SELECT 0, s.version, s.ref, s.state, s.recorded_at INTO found_in, version, ref, state, moment
          FROM log.es_stream AS s WHERE s.log_id = 0 AND s.stream = name;
    END IF;
    IF coalesce(version, 0) <> expected THEN
        refusal := json_build_object(
            'failed', refusal->'failed', 'missing', refusal->'missing',
            'conflicts', coalesce(nullif((refusal->'conflicts')::text, 'null')::jsonb, '[]')
                || jsonb_build_array(jsonb_build_array(name, coalesce(version, 0), ref, state::text, moment, found_in)));
    END IF;
END $$;

-- Writes what happened to a session, numbered from head + 1, and how it stands then. `standing` is how it stood.
CREATE OR REPLACE FUNCTION log.es_write_session(
    command jsonb, in_part integer, head bigint, moment timestamptz, standing record
) RETURNS json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    session jsonb := command->'session';
    name text := session->>'stream';
    place bigint := head;
    new_ref text := standing.ref;
    new_state json := standing.state;
    event jsonb;
BEGIN
    FOR event IN SELECT e FROM jsonb_array_elements(session->'events') AS e LOOP
        place := place + 1;
        INSERT INTO log.es_upload_event (
            position, recorded_at, version, part, log_id, partition, schema_version, sets_ref, stream, key, type,
            actor, request_id, correlation_id, causation_id, prev_ref, ref, data, state
        ) VALUES (
            place, moment, coalesce(standing.version, 0) + (place - head)::integer, in_part, 1,
            (session->>'partition')::smallint, (event->>'schema_version')::smallint, event ? 'ref', name,
            session->>'key', event->>'type', command->>'actor', command->>'request_id', command->>'correlation_id',
            (command->>'causation_id')::uuid, new_ref, event->>'ref', (event->>'data')::json,
            CASE WHEN event ? 'state' THEN coalesce(event->>'state', 'null')::json END
        );
        IF event ? 'ref' THEN
            new_ref := event->>'ref';
        END IF;
        IF event ? 'state' THEN
            new_state := nullif(event->>'state', 'null')::json;
        END IF;
    END LOOP;
    -- No UPDATE, which would open the tables of all parts.
    INSERT INTO log.es_upload_stream (first_position, last_position, recorded_at, version, part, log_id, stream, key,
                                      ref, state)
    VALUES (head + 1, place, moment, coalesce(standing.version, 0) + (place - head)::integer,
            coalesce(standing.part, in_part), 1, name, session->>'key', new_ref, new_state)
        ON CONFLICT (stream, part) DO UPDATE
       SET last_position = excluded.last_position, recorded_at = excluded.recorded_at, version = excluded.version,
           ref = excluded.ref, state = excluded.state;
    RETURN json_build_object('first', head + 1, 'last', place, 'recorded_at', moment);
END $$;

-- The latest moment of which the database knows: its own time, or that of this log's last event if it is later. What a
-- caller says is measured by it, so that one with a wrong clock neither makes parts without end nor drops what is new.
CREATE OR REPLACE FUNCTION log.es_upload_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT greatest(clock_timestamp(), (SELECT h.moment FROM log.es_upload_head() AS h))
$$;

-- Begins a part of this log if the first event of the newest one was recorded up to `before`, and an hour ago; true if it
-- did. The tables are made aside and then attached, which neither waits for those who read the log nor makes them wait.
CREATE OR REPLACE FUNCTION log.es_begin_upload_part(before timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    newest integer;
    head record;
BEGIN
    -- One keeper at a time makes a part.
    PERFORM pg_advisory_xact_lock(4716);
    SELECT p.part INTO newest FROM es_upload_part AS p ORDER BY p.part DESC LIMIT 1;
    IF (SELECT e.recorded_at FROM es_upload_event AS e WHERE e.part = newest ORDER BY e.position LIMIT 1)
       <= least(before, es_upload_now() - interval '1 hour')
    THEN
        PERFORM es_make_upload_part(newest + 1);
        PERFORM pg_advisory_xact_lock(4711, 1);
        SELECT * INTO head FROM es_upload_head();
        INSERT INTO es_upload_part (part, first_position, begun_after) VALUES (newest + 1, head.place + 1, head.moment);
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- The tables of a part, with the guard that a partition needs for itself: one of the whole table is not asked there.
CREATE OR REPLACE FUNCTION log.es_make_upload_part(new_part integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['es_upload_event', 'es_upload_stream'] LOOP
        EXECUTE format('CREATE TABLE log.%I (LIKE log.%I INCLUDING ALL, CHECK (part = %s))',
                       relation || '_' || new_part, relation, new_part);
        EXECUTE format('ALTER TABLE log.%I ATTACH PARTITION log.%I FOR VALUES IN (%s)',
                       relation, relation || '_' || new_part, new_part);
    END LOOP;
    EXECUTE format('ALTER TABLE log.%I SET (fillfactor = 80)', 'es_upload_stream_' || new_part);
    PERFORM es_guard_uploads('es_upload_event_' || new_part);
END $$;

-- Notes of each part but the newest that no stream of it has a ref any more (an open session has one), and the time by
-- which all had ended: that of this log's last event. A stream that has ended stays so, and none begins in an older part.
CREATE OR REPLACE FUNCTION log.es_note_ended_parts() RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    newest integer := (SELECT p.part FROM log.es_upload_part AS p ORDER BY p.part DESC LIMIT 1);
    each integer;
BEGIN
    FOR each IN SELECT p.part FROM log.es_upload_part AS p WHERE p.ended_at IS NULL AND p.part < newest LOOP
        -- Only the few that are open are looked at (es_upload_stream_ref), however many have ended.
        IF (SELECT s.ref FROM log.es_upload_stream AS s WHERE s.part = each AND s.ref IS NOT NULL LIMIT 1) IS NULL THEN
            UPDATE log.es_upload_part AS p SET ended_at = h.moment FROM log.es_upload_head() AS h WHERE p.part = each;
        END IF;
    END LOOP;
END $$;

-- Drops the oldest part, with its streams, if its last event was recorded before `before`, and all of its sessions had
-- ended before `quiet_since`; true if it did, null if somebody uses it. Neither is later than a day ago. The part that is
-- written never goes. Nothing is added to an older one: what was found without the lock holds under it.
CREATE OR REPLACE FUNCTION log.es_drop_upload_part(before timestamptz, quiet_since timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    oldest integer;
BEGIN
    PERFORM es_note_ended_parts();
    oldest := es_upload_part_over(before, quiet_since);
    IF oldest IS NULL THEN
        RETURN false;
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock(4711, 1);
        -- Whoever reads the log is not kept waiting for longer than this, and the keeper comes again.
        PERFORM set_config('lock_timeout', '100ms', true);
        -- Not the other parts, which may be many or in use by themselves, by a vacuum for example.
        LOCK TABLE ONLY log.es_upload_event, ONLY log.es_upload_stream IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('DROP TABLE IF EXISTS log.%I, log.%I',
                       'es_upload_event_' || oldest, 'es_upload_stream_' || oldest);
        DELETE FROM es_upload_part AS p WHERE p.part = oldest;
        RETURN true;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        RETURN NULL;
    END;
END $$;

-- The oldest part if es_drop_upload_part would drop it, else null.
CREATE OR REPLACE FUNCTION log.es_upload_part_over(before timestamptz, quiet_since timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    day_ago timestamptz := es_upload_now() - interval '1 day';
    oldest record;
BEGIN
    SELECT p.part, p.ended_at INTO oldest FROM es_upload_part AS p ORDER BY p.part LIMIT 1;
    -- Never true of the newest part, of which no end is noted.
    IF oldest.ended_at < least(quiet_since, day_ago)
       AND (SELECT e.recorded_at FROM es_upload_event AS e WHERE e.part = oldest.part ORDER BY e.position DESC LIMIT 1)
           < least(before, day_ago)
    THEN
        RETURN oldest.part;
    END IF;
    RETURN NULL;
END $$;

-- es_upload_stream as the events say it must be, of the streams of which every event is there still.
CREATE OR REPLACE VIEW log.es_upload_stream_rebuilt AS
SELECT (array_agg(e.part ORDER BY e.position))[1] AS part, e.stream,
       (array_agg(e.key ORDER BY e.position))[1] AS key,
       max(e.version) AS version,
       (array_agg(e.ref ORDER BY e.position DESC) FILTER (WHERE e.sets_ref))[1] AS ref,
       nullif((array_agg(e.state::text ORDER BY e.position DESC) FILTER (WHERE e.state IS NOT NULL))[1], 'null')::json
           AS state,
       min(e.position) AS first_position,
       max(e.position) AS last_position,
       max(e.recorded_at) AS recorded_at
  FROM log.es_upload_event AS e
 GROUP BY e.stream
HAVING min(e.version) = 1;
