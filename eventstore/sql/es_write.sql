-- Writes the events of a command that is not refused, numbered from head + 1, and the rows beside them.
-- Each event sees those before it: a stream named twice gets two versions, Expand misses a tag that just moved away.
-- The row of a stream that events in succession name is written once, with the last of them.
CREATE OR REPLACE FUNCTION log.es_write_events(in_log smallint, command jsonb, head bigint, moment timestamptz) RETURNS json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    by_whom text := command->>'actor';
    request text := command->>'request_id';
    correlation text := command->>'correlation_id';
    causation uuid := command->>'causation_id';
    place bigint := head;
    number integer := 0;
    event jsonb;
    upcoming jsonb;
    names text[];
    name text;
    -- True while the row of the stream under way is still to be written.
    held boolean := false;
    stood_at integer;
    now_at integer;
    now_ref text;
    now_state json;
    sets_state boolean;
    own_key text;
    began bigint;
    body text;
    targets text[];
    standing text[];
    moved text[] := '{}';
    moved_from text[] := '{}';
BEGIN
    IF command ? 'carried' THEN
        -- Small content, which would cost more in a transaction of its own. It is not listed as new: an event names it.
        INSERT INTO log.es_content (digest, stored_at, body, facts)
        SELECT c->>0, moment, decode(c->>1, 'base64'), (c->>2)::jsonb
          FROM jsonb_array_elements(command->'carried') AS c
            ON CONFLICT (digest) DO NOTHING;
    END IF;
    FOR event IN SELECT e FROM jsonb_array_elements(command->'events') AS e LOOP
        number := number + 1;
        IF event ? 'target' THEN
            -- EXECUTE here and below: see es_refusal.
            EXECUTE 'SELECT array_agg(t.stream ORDER BY t.stream) FROM (SELECT s.stream FROM log.es_stream AS s'
                    ' WHERE s.log_id = $1 AND s.ref = $2 AND starts_with(s.stream, $3) LIMIT $4) AS t'
               INTO names USING in_log, event->>'target', event->>'prefix', (event->>'most')::bigint;
        ELSE
            names := ARRAY[event->>'stream'];
        END IF;
        targets := NULL;
        IF event ? 'refers_to' THEN
            targets := ARRAY(SELECT DISTINCT t COLLATE "C" FROM jsonb_array_elements_text(event->'refers_to') AS t
                              ORDER BY 1);
        END IF;
        FOREACH name IN ARRAY coalesce(names, '{}') LOOP
            IF NOT held THEN
                SELECT s.version, s.ref INTO stood_at, now_ref
                  FROM log.es_stream AS s WHERE s.log_id = in_log AND s.stream = name;
                now_at := coalesce(stood_at, 0);
                sets_state := false;
                now_state := NULL;
                own_key := event->>'key';
                began := place + 1;
            END IF;
            CONTINUE WHEN event ? 'ensure' AND now_ref IS NOT DISTINCT FROM event->>'ref';
            body := event->>'data';
            IF event ? 'target' THEN
                body := left(body, -1) || CASE body WHEN '{}' THEN '' ELSE ',' END || to_json(event->>'field')
                     || ':' || to_json(substr(name, length(event->>'prefix') + 1)) || '}';
            END IF;
            place := place + 1;
            now_at := now_at + 1;
            IF targets IS NOT NULL AND now_at > 1 THEN
                EXECUTE 'SELECT coalesce(array_agg(r.target ORDER BY r.target), ''{}'') FROM (SELECT q.target'
                        ' FROM log.es_ref AS q WHERE q.log_id = $1 AND q.from_stream = $2 OFFSET 0) AS r'
                   INTO standing USING in_log, name;
                IF standing = targets THEN
                    -- Most pushes repeat an earlier one, with the same references. Then none is touched.
                    targets := NULL;
                END IF;
            END IF;
            INSERT INTO log.es_event (
                position, recorded_at, version, log_id, partition, schema_version, sets_ref, stream, key, type,
                actor, request_id, correlation_id, causation_id, prev_ref, ref, content, data, state, refers_to
            ) VALUES (
                place, moment, now_at, in_log, (event->>'partition')::smallint,
                (event->>'schema_version')::smallint, event ? 'ref', name, event->>'key', event->>'type',
                by_whom, request, correlation, causation, now_ref, event->>'ref', event->>'content', body::json,
                CASE WHEN event ? 'state' THEN coalesce(event->>'state', 'null')::json END, targets
            );
            IF targets IS NOT NULL THEN
                IF now_at > 1 THEN
                    PERFORM log.es_refer_no_more(in_log, name, standing, targets, moment);
                END IF;
                INSERT INTO log.es_ref (log_id, target, from_stream) SELECT in_log, t, name FROM unnest(targets) AS t
                    ON CONFLICT DO NOTHING;
            END IF;
            -- Of equal names the last one counts: for a stream that is named twice, the ref that it had at first.
            moved := name || moved;
            moved_from := now_ref || moved_from;
            IF event ? 'ref' THEN
                now_ref := event->>'ref';
            END IF;
            IF event ? 'state' THEN
                sets_state := true;
                now_state := nullif(event->>'state', 'null')::json;
            END IF;
            upcoming := command->'events'->number;
            -- An event that is to be ensured may be dropped.
            held := coalesce(upcoming->>'stream' = name, false) AND NOT (upcoming ? 'ensure' OR event ? 'target');
            CONTINUE WHEN held;
            IF stood_at IS NULL THEN
                INSERT INTO log.es_stream (first_position, last_position, recorded_at, version, log_id,
                                           stream, key, ref, state)
                VALUES (began, place, moment, now_at, in_log, name, own_key, now_ref, now_state);
            ELSE
                UPDATE log.es_stream AS s
                   SET last_position = place, recorded_at = moment, version = now_at, ref = now_ref,
                       state = CASE WHEN sets_state THEN now_state ELSE s.state END
                 WHERE s.log_id = in_log AND s.stream = name;
            END IF;
        END LOOP;
    END LOOP;
    RETURN json_build_object('first', head + 1, 'last', place, 'recorded_at', moment,
                             'previous', jsonb_object(moved, moved_from));
END $$;

-- Takes away what a stream has referred to since an earlier event, `standing`, and is not among its new targets.
CREATE OR REPLACE FUNCTION log.es_refer_no_more(
    in_log smallint, of_stream text, standing text[], targets text[], moment timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    gone text[] := ARRAY(SELECT unnest(standing) EXCEPT SELECT unnest(targets));
    idle text[] := ARRAY(SELECT substr(g, 5) FROM unnest(gone) AS g WHERE starts_with(g, 'set-'));
BEGIN
    -- EXECUTE: see es_refusal.
    EXECUTE 'DELETE FROM log.es_ref AS r WHERE r.log_id = $1 AND r.target = ANY ($3) AND r.from_stream = $2'
      USING in_log, of_stream, gone;
    IF cardinality(idle) > 0 THEN
        -- Perhaps no stream refers to such a set any more, so the next sweep looks.
        UPDATE log.es_set AS s SET idle_since = moment WHERE s.digest = ANY (idle);
    END IF;
END $$;
