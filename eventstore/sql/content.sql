-- Stores content before the append that names it; storing it again changes nothing. True if it was new. New content is
-- listed until a sweep has looked whether an event names it. So no sweep looks at the same content twice.
CREATE OR REPLACE FUNCTION log.es_put_content(in_digest text, in_body bytea, in_facts text, moment timestamptz)
RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    INSERT INTO es_content (digest, stored_at, body, facts) VALUES (in_digest, moment, in_body, in_facts::jsonb)
        ON CONFLICT (digest) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO es_content_new (stored_at, digest) VALUES (moment, in_digest) ON CONFLICT DO NOTHING;
    RETURN true;
END $$;

-- Looks at up to `most` new contents that were stored before `before`, oldest first. It deletes those that no event names,
-- and takes all of them off the list, because named content stays named. Answers the numbers of contents that were looked
-- at and deleted; there may be more as long as any were looked at. It looks without the lock. So appends wait only for the
-- deletion of the few that were found, which looks at them again. A manifest of megabytes lies in thousands of rows that
-- Postgres deletes one by one, so a call ends once it has found 4 MiB to delete.
CREATE OR REPLACE FUNCTION log.es_sweep_new_content(
    before timestamptz, most integer, OUT looked_at integer, OUT swept integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    digests text[];
    moments timestamptz[];
    sizes bigint[];
    orphans text[];
BEGIN
    -- Subqueries, because LIMIT keeps the planner from making a join of one. Content that an event names gets no size here.
    SELECT array_agg(s.digest ORDER BY s.place), array_agg(s.stored_at ORDER BY s.place),
           array_agg(s.size ORDER BY s.place)
      INTO digests, moments, sizes
      FROM (SELECT o.*, coalesce(sum(o.size) OVER (ORDER BY o.place), 0) - coalesce(o.size, 0) AS taken
              FROM (SELECT n.*, row_number() OVER (ORDER BY n.stored_at, n.digest) AS place,
                           CASE WHEN (SELECT e.content FROM es_event AS e WHERE e.content = n.digest LIMIT 1) IS NULL
                                THEN coalesce((SELECT pg_column_size(c.body) + coalesce(pg_column_size(c.facts), 0)
                                                 FROM es_content AS c WHERE c.digest = n.digest), 0) END AS size
                      FROM (SELECT l.digest, l.stored_at FROM es_content_new AS l
                             WHERE l.stored_at < before ORDER BY l.stored_at, l.digest LIMIT most) AS n) AS o) AS s
     WHERE s.taken < 4 * 1024 * 1024;
    looked_at := coalesce(cardinality(digests), 0);
    swept := 0;
    orphans := ARRAY(SELECT d FROM unnest(digests, sizes) AS u (d, size) WHERE u.size IS NOT NULL);
    IF cardinality(orphans) > 0 THEN
        PERFORM pg_advisory_xact_lock(4711, 0);
        DELETE FROM es_content AS c
         WHERE c.digest = ANY (orphans)
           AND (SELECT e.content FROM es_event AS e WHERE e.content = c.digest LIMIT 1) IS NULL;
        GET DIAGNOSTICS swept = ROW_COUNT;
    END IF;
    DELETE FROM es_content_new AS l USING unnest(digests, moments) AS n (digest, stored_at)
     WHERE l.stored_at = n.stored_at AND l.digest = n.digest;
END $$;

-- The same in the form that processes of the release before call.
CREATE OR REPLACE FUNCTION log.es_sweep_content(before timestamptz, most integer) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
    SELECT s.swept FROM es_sweep_new_content(before, most) AS s
$$;

-- Looks at the next `most` contents behind the digest `beyond`, and lists as new those that no event names. Answers the
-- last digest, null if there are no more. This is for content that was stored before there was a list.
CREATE OR REPLACE FUNCTION log.es_list_content(beyond text, most integer) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    digests text[];
BEGIN
    digests := ARRAY(SELECT c.digest FROM es_content AS c WHERE c.digest > beyond ORDER BY c.digest LIMIT most);
    INSERT INTO es_content_new (stored_at, digest)
    SELECT (SELECT c.stored_at FROM es_content AS c WHERE c.digest = d), d
      FROM unnest(digests) AS d
     WHERE (SELECT e.content FROM es_event AS e WHERE e.content = d LIMIT 1) IS NULL
       AND (SELECT c.stored_at FROM es_content AS c WHERE c.digest = d) IS NOT NULL
        ON CONFLICT DO NOTHING;
    RETURN digests[cardinality(digests)];
END $$;
