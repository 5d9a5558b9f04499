-- Lets only programs that know at least this revision serve from now on; an earlier demand is never lowered. Programs from
-- before there were windows serve if log.alembic_version names their one revision, so it names this revision instead.
CREATE OR REPLACE FUNCTION log.es_raise_serves_from(revision text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    UPDATE es_schema AS s SET serves_from = revision WHERE s.serves_from < revision;
    UPDATE alembic_version AS v SET version_num = s.serves_from FROM es_schema AS s WHERE v.version_num < s.serves_from;
END $$;
