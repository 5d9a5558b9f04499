-- Writes the events of a command that nothing speaks against, numbered from head + 1, and what is kept beside them.
-- Each event sees those before it: a stream named twice gets two versions, Expand misses a tag that just moved away.
CREATE OR REPLACE FUNCTION log.es_write(in_log smallint, command jsonb, head bigint, moment timestamptz) RETURNS json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    by_whom text := command->>'actor';
    request text := command->>'request_id';
    correlation text := command->>'correlation_id';
    causation uuid := command->>'causation_id';
    place bigint := head;
    event jsonb;
    names text[];
    name text;
    was_version integer;
    was_ref text;
    body text;
    targets text[];
    previous jsonb := '{}';
    result json;
BEGIN
    FOR event IN SELECT e FROM jsonb_array_elements(command->'events') AS e LOOP
        IF event ? 'target' THEN
            -- EXECUTE here and below: see es_refusal.
            EXECUTE 'SELECT array_agg(s.stream ORDER BY s.stream) FROM log.es_stream AS s'
                    ' WHERE s.log_id = $1 AND s.ref = $2 AND starts_with(s.stream, $3)'
               INTO names USING in_log, event->>'target', event->>'prefix';
        ELSE
            names := ARRAY[event->>'stream'];
        END IF;
        targets := NULL;
        IF event ? 'refers_to' THEN
            targets := ARRAY(SELECT DISTINCT t FROM jsonb_array_elements_text(event->'refers_to') AS t);
        END IF;
        FOREACH name IN ARRAY coalesce(names, '{}') LOOP
            SELECT s.version, s.ref INTO was_version, was_ref
              FROM log.es_stream AS s WHERE s.log_id = in_log AND s.stream = name;
            CONTINUE WHEN event ? 'ensure' AND was_ref IS NOT DISTINCT FROM event->>'ref';
            body := event->>'data';
            IF event ? 'target' THEN
                body := left(body, -1) || CASE body WHEN '{}' THEN '' ELSE ',' END || to_json(event->>'field')
                     || ':' || to_json(substr(name, length(event->>'prefix') + 1)) || '}';
            END IF;
            place := place + 1;
            INSERT INTO log.es_event (
                position, recorded_at, version, log_id, partition, schema_version, sets_ref, stream, key, type,
                actor, request_id, correlation_id, causation_id, prev_ref, ref, content, data, state, refers_to
            ) VALUES (
                place, moment, coalesce(was_version, 0) + 1, in_log, (event->>'partition')::smallint,
                (event->>'schema_version')::smallint, event ? 'ref', name, event->>'key', event->>'type',
                by_whom, request, correlation, causation, was_ref, event->>'ref', event->>'content', body::json,
                CASE WHEN event ? 'state' THEN coalesce(event->>'state', 'null')::json END, targets
            );
            IF was_version IS NULL THEN
                INSERT INTO log.es_stream (first_position, last_position, recorded_at, version, log_id,
                                       stream, key, ref, state)
                VALUES (place, place, moment, 1, in_log,
                        name, event->>'key', event->>'ref', nullif(event->>'state', 'null')::json);
            ELSE
                UPDATE log.es_stream AS s
                   SET last_position = place, recorded_at = moment, version = was_version + 1,
                       ref = CASE WHEN event ? 'ref' THEN event->>'ref' ELSE s.ref END,
                       state = CASE WHEN event ? 'state' THEN nullif(event->>'state', 'null')::json ELSE s.state END
                 WHERE s.log_id = in_log AND s.stream = name;
            END IF;
            IF targets IS NOT NULL THEN
                IF was_version IS NOT NULL THEN
                    EXECUTE 'DELETE FROM log.es_ref AS r WHERE r.log_id = $1 AND r.from_stream = $2'
                      USING in_log, name;
                END IF;
                INSERT INTO log.es_ref (log_id, target, from_stream) SELECT in_log, t, name FROM unnest(targets) AS t;
            END IF;
            previous := jsonb_build_object(name, was_ref) || previous;
        END LOOP;
    END LOOP;
    IF place > head AND (command ? 'address' OR command ? 'user_agent') THEN
        INSERT INTO log.es_client (first_position, last_position, recorded_at, log_id, address, user_agent)
        VALUES (head + 1, place, moment, in_log, command->>'address', command->>'user_agent');
    END IF;
    result := json_build_object('first', head + 1, 'last', place, 'recorded_at', moment, 'previous', previous);
    INSERT INTO log.es_command (log_id, id, recorded_at, result) VALUES (in_log, command->>'id', moment, result);
    RETURN result;
END $$;
