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

CREATE OR REPLACE TRIGGER es_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log.es_event
    FOR EACH STATEMENT EXECUTE FUNCTION log.es_refuse_change();
CREATE OR REPLACE TRIGGER es_content_append_only BEFORE UPDATE OR TRUNCATE ON log.es_content
    FOR EACH STATEMENT EXECUTE FUNCTION log.es_refuse_change();
CREATE OR REPLACE TRIGGER es_content_named BEFORE DELETE ON log.es_content
    FOR EACH ROW EXECUTE FUNCTION log.es_refuse_named_content();
ALTER TABLE log.es_event ENABLE ALWAYS TRIGGER es_event_append_only;
ALTER TABLE log.es_content ENABLE ALWAYS TRIGGER es_content_append_only;
ALTER TABLE log.es_content ENABLE ALWAYS TRIGGER es_content_named;
