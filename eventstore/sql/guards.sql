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
DO $$
DECLARE
    guard record;
BEGIN
    FOR guard IN
        SELECT * FROM (VALUES
            ('es_event_append_only', 'es_event', 'UPDATE OR DELETE OR TRUNCATE', 'STATEMENT', 'es_refuse_change'),
            ('es_content_append_only', 'es_content', 'UPDATE OR TRUNCATE', 'STATEMENT', 'es_refuse_change'),
            ('es_content_named', 'es_content', 'DELETE', 'ROW', 'es_refuse_named_content')
        ) AS g (name, relation, refused, of_each, function)
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_trigger AS t
             WHERE t.tgrelid = format('log.%I', guard.relation)::regclass AND t.tgname = guard.name AND t.tgenabled = 'A');
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I BEFORE %s ON log.%I FOR EACH %s EXECUTE FUNCTION log.%I()',
            guard.name, guard.refused, guard.relation, guard.of_each, guard.function);
        EXECUTE format('ALTER TABLE log.%I ENABLE ALWAYS TRIGGER %I', guard.relation, guard.name);
    END LOOP;
END $$;
