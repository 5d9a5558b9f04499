-- Features in use, and live processes. A process that registers shares this lock with others; putting a feature to use
-- holds it alone. So a process either registered before the feature is used, and is asked, or comes later, and is told.
--
-- es_beat notes that a process lives, and its features. It answers the reasons that forbid the process to serve, one
-- sentence each. Such a process does not count as living.
CREATE OR REPLACE FUNCTION log.es_beat(
    in_id text, in_kind text, in_host text, in_pid integer, in_shapes text[], in_features text[], in_knows text
) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    forbids text[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4714);
    SELECT array_agg(f.reason ORDER BY f.reason) INTO forbids FROM log.es_forbids(in_kind, in_features, in_knows) AS f (reason);
    IF forbids IS NOT NULL THEN
        DELETE FROM feed.process AS p WHERE p.id = in_id;
        RETURN forbids;
    END IF;
    INSERT INTO feed.process (id, kind, host, pid, shapes, features, knows, started_at, seen_at)
    VALUES (in_id, in_kind, in_host, in_pid, in_shapes, in_features, in_knows, clock_timestamp(), clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, shapes = excluded.shapes;
    RETURN '{}';
END $$;

-- Answers the reasons that forbid a process of this kind, with these features and this newest revision, to serve.
CREATE OR REPLACE FUNCTION log.es_forbids(in_kind text, in_features text[], in_knows text) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    SELECT format('the database stands at schema %s, which needs a program that knows schema %s; this one knows %s: '
                  'install a newer version of tagtrail', s.version_num, s.serves_from, in_knows)
      FROM log.es_schema AS s WHERE s.serves_from > in_knows
    UNION ALL
    SELECT format('the log uses %s, which this %s does not know: install a newer version of tagtrail',
                  string_agg(f.name, ', ' ORDER BY f.name), in_kind)
      FROM log.es_feature AS f WHERE in_kind = ANY (f.kinds) AND NOT f.name = ANY (in_features)
    HAVING count(*) > 0
$$;

-- Puts a feature to use for good, unless a live process of the kinds concerned lacks it; answers those processes.
-- Programs from before there were features stop serving with the first one, and so do those that know less than `in_from`.
CREATE OR REPLACE FUNCTION log.es_use_feature(in_name text, in_kinds text[], in_from text, lives_for interval)
RETURNS text[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    without text[];
BEGIN
    PERFORM pg_advisory_xact_lock(4714);
    IF EXISTS (SELECT FROM es_feature AS f WHERE f.name = in_name) THEN
        RETURN '{}';
    END IF;
    SELECT array_agg(format('%s %s', p.kind, p.id) ORDER BY p.kind, p.id) INTO without FROM feed.process AS p
     WHERE p.seen_at > clock_timestamp() - lives_for
       AND (p.knows < in_from OR p.kind = ANY (in_kinds) AND NOT in_name = ANY (p.features));
    IF without IS NOT NULL THEN
        RETURN without;
    END IF;
    INSERT INTO es_feature (name, kinds, used_from) VALUES (in_name, in_kinds, clock_timestamp());
    PERFORM es_raise_serves_from(in_from);
    RETURN '{}';
END $$;
