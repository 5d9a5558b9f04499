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
    standing text[];
    gone text[];
    idle text[];
    moved text[] := '{}';
    moved_from text[] := '{}';
    previous jsonb;
    result json;
BEGIN
    IF command ? 'carried' THEN
        -- Small content, for which a transaction of its own would cost more. It is not listed as new: an event names it.
        INSERT INTO log.es_content (digest, stored_at, body, facts)
        SELECT c->>0, moment, decode(c->>1, 'base64'), (c->>2)::jsonb
          FROM jsonb_array_elements(command->'carried') AS c
            ON CONFLICT (digest) DO NOTHING;
    END IF;
    FOR event IN SELECT e FROM jsonb_array_elements(command->'events') AS e LOOP
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
            SELECT s.version, s.ref INTO was_version, was_ref
              FROM log.es_stream AS s WHERE s.log_id = in_log AND s.stream = name;
            CONTINUE WHEN event ? 'ensure' AND was_ref IS NOT DISTINCT FROM event->>'ref';
            body := event->>'data';
            IF event ? 'target' THEN
                body := left(body, -1) || CASE body WHEN '{}' THEN '' ELSE ',' END || to_json(event->>'field')
                     || ':' || to_json(substr(name, length(event->>'prefix') + 1)) || '}';
            END IF;
            place := place + 1;
            IF targets IS NOT NULL AND was_version IS NOT NULL THEN
                EXECUTE 'SELECT coalesce(array_agg(r.target ORDER BY r.target), ''{}'') FROM (SELECT q.target'
                        ' FROM log.es_ref AS q WHERE q.log_id = $1 AND q.from_stream = $2 OFFSET 0) AS r'
                   INTO standing USING in_log, name;
                IF standing = targets THEN
                    -- Most pushes repeat one: the event says that its references are as they were, and none is touched.
                    targets := NULL;
                END IF;
            END IF;
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
                    gone := ARRAY(SELECT unnest(standing) EXCEPT SELECT unnest(targets));
                    EXECUTE 'DELETE FROM log.es_ref AS r'
                            ' WHERE r.log_id = $1 AND r.target = ANY ($3) AND r.from_stream = $2'
                      USING in_log, name, gone;
                    idle := ARRAY(SELECT substr(g, 5) FROM unnest(gone) AS g WHERE starts_with(g, 'set-'));
                    IF cardinality(idle) > 0 THEN
                        -- Perhaps nothing refers to such a set any more: the next sweep looks.
                        UPDATE log.es_set AS s SET idle_since = moment WHERE s.digest = ANY (idle);
                    END IF;
                END IF;
                INSERT INTO log.es_ref (log_id, target, from_stream) SELECT in_log, t, name FROM unnest(targets) AS t
                    ON CONFLICT DO NOTHING;
            END IF;
            moved := moved || name;
            moved_from := moved_from || was_ref;
        END LOOP;
    END LOOP;
    IF place > head AND (command ? 'address' OR command ? 'user_agent') THEN
        INSERT INTO log.es_client (first_position, last_position, recorded_at, log_id, address, user_agent)
        VALUES (head + 1, place, moment, in_log, command->>'address', command->>'user_agent');
    END IF;
    -- Of a stream that is named twice, the ref that it had at first: of equal names the last one stays.
    SELECT coalesce(jsonb_object_agg(m.stream, m.ref ORDER BY m.place DESC), '{}') INTO previous
      FROM unnest(moved, moved_from) WITH ORDINALITY AS m(stream, ref, place);
    result := json_build_object('first', head + 1, 'last', place, 'recorded_at', moment, 'previous', previous);
    PERFORM log.es_keep_key(in_log, command->>'id', moment, result);
    RETURN result;
END $$;
