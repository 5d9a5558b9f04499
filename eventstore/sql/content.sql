-- Stores content before the append that names it; storing it again changes nothing. True if it was new. New content is
-- listed until a sweep has looked whether an event names it: so a sweep never looks at the same content twice.
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

-- Looks at up to `most` of the new content that was stored before `before`, longest ago first: deletes what no event
-- names, and takes all of it off the list, because what an event names stays named. Answers how many were looked at and
-- deleted. They are looked at without the lock, so that appends wait only for the deletion of the few found, which
-- looks again.
CREATE OR REPLACE FUNCTION log.es_sweep_new_content(
    before timestamptz, most integer, OUT looked_at integer, OUT swept integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    digests text[];
    moments timestamptz[];
    orphans text[];
BEGIN
    SELECT array_agg(n.digest), array_agg(n.stored_at) INTO digests, moments
      FROM (SELECT l.digest, l.stored_at FROM es_content_new AS l WHERE l.stored_at < before
             ORDER BY l.stored_at, l.digest LIMIT most) AS n;
    looked_at := coalesce(cardinality(digests), 0);
    swept := 0;
    -- Subqueries, because LIMIT keeps the planner from making a join of one.
    orphans := ARRAY(SELECT d FROM unnest(digests) AS d
                      WHERE (SELECT e.content FROM es_event AS e WHERE e.content = d LIMIT 1) IS NULL);
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

-- The same, as processes of the release before ask for it.
CREATE OR REPLACE FUNCTION log.es_sweep_content(before timestamptz, most integer) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
    SELECT s.swept FROM es_sweep_new_content(before, most) AS s
$$;

-- Lists as new what no event names of the next `most` contents behind the digest `beyond`; answers the last of them, null
-- if there are no more. For what was stored before there was a list.
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
