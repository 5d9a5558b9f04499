-- Append-only for everyone, the owner included: ENABLE ALWAYS so that session_replication_role cannot skip it.
CREATE OR REPLACE FUNCTION log.es_refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'log.% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'TT003';
END $$;

-- A content row may go only if no event names it; the append lock keeps that true until the deletion commits.
CREATE OR REPLACE FUNCTION log.es_refuse_named_content() RETURNS trigger
LANGUAGE plpgsql SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(4711, 0);
    IF EXISTS (SELECT FROM es_event AS e WHERE e.content = OLD.digest) THEN
        RAISE EXCEPTION 'content % is named by an event: DELETE refused', OLD.digest USING ERRCODE = 'TT003';
    END IF;
    RETURN OLD;
END $$;

-- Made only where they are missing: to make one again waits for a vacuum of its table, which takes hours on a large log, and
-- which Postgres does not end for who waits as shortly as a migration. A revision that changes one drops it first.
CREATE OR REPLACE FUNCTION log.es_guard(relation text, guard text, refused text, of_each text, refuse text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger AS t
                    WHERE t.tgrelid = format('log.%I', relation)::regclass AND t.tgname = guard AND t.tgenabled = 'A')
    THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE %s ON log.%I FOR EACH %s EXECUTE FUNCTION log.%I()',
                       guard, refused, relation, of_each, refuse);
        EXECUTE format('ALTER TABLE log.%I ENABLE ALWAYS TRIGGER %I', relation, guard);
    END IF;
END $$;

-- The guard of the log of uploads, or of one of its partitions: each has its own, because a statement is told to the
-- triggers of the table that it names alone.
CREATE OR REPLACE FUNCTION log.es_guard_uploads(relation text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = log, pg_catalog, pg_temp AS $$
    SELECT es_guard(relation, 'es_upload_append_only', 'UPDATE OR DELETE OR TRUNCATE', 'STATEMENT', 'es_refuse_change')
$$;

SELECT log.es_guard('es_event', 'es_event_append_only', 'UPDATE OR DELETE OR TRUNCATE', 'STATEMENT', 'es_refuse_change');
SELECT log.es_guard('es_content', 'es_content_append_only', 'UPDATE OR TRUNCATE', 'STATEMENT', 'es_refuse_change');
SELECT log.es_guard('es_content', 'es_content_named', 'DELETE', 'ROW', 'es_refuse_named_content');
SELECT log.es_guard_uploads('es_upload_event');
SELECT log.es_guard_uploads(c.relname)
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = 'log.es_upload_event'::regclass;
