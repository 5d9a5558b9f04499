-- Stores content before the append that names it (S12); storing it again changes nothing. True if it was new.
CREATE OR REPLACE FUNCTION log.es_put_content(in_digest text, in_body bytea, in_facts text, moment timestamptz)
RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    INSERT INTO es_content (digest, stored_at, body, facts) VALUES (in_digest, moment, in_body, in_facts::jsonb)
        ON CONFLICT (digest) DO NOTHING;
    RETURN FOUND;
END $$;

-- Deletes up to `most` content rows stored before `before` that no event names; answers how many. They are looked
-- for without the lock, so that appends wait only for the deletion of the few found, which looks again.
CREATE OR REPLACE FUNCTION log.es_sweep_content(before timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    candidates text[];
    swept integer;
BEGIN
    candidates := ARRAY(SELECT c.digest FROM es_content AS c
                         WHERE c.stored_at < before
                           AND NOT EXISTS (SELECT FROM es_event AS e WHERE e.content = c.digest)
                         LIMIT most);
    IF cardinality(candidates) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(4711, 0);
    DELETE FROM es_content AS c
     WHERE c.digest = ANY (candidates) AND NOT EXISTS (SELECT FROM es_event AS e WHERE e.content = c.digest);
    GET DIAGNOSTICS swept = ROW_COUNT;
    RETURN swept;
END $$;
