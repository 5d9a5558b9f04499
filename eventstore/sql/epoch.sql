-- Where the log lives: the cluster, its timeline, the database and the table. Each kind of restore changes one of them.
CREATE OR REPLACE FUNCTION log.es_whereabouts(OUT system text, OUT line integer, OUT relation text)
LANGUAGE sql STABLE SET search_path = log, pg_catalog, pg_temp AS $$
    SELECT c.system_identifier::text,
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer,
           (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) || '/'
               || 'log.es_event'::regclass::oid
      FROM pg_control_system() AS c
$$;

-- The same and the epoch, as one text: while it stays, the log has not gone back to an earlier time.
CREATE OR REPLACE FUNCTION log.es_log_mark(in_log smallint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT concat_ws('/', l.epoch, w.system, w.line, w.relation)
      FROM log.es_log AS l, log.es_whereabouts() AS w WHERE l.log_id = in_log
$$;

-- Notes where the log lives and answers its epoch, which all logs of a database share, raised if that changed since it was noted: positions may then have
-- been used twice (rule: epochs). The first note of a new log keeps its epoch. Nothing is locked or written where all is as it was.
CREATE OR REPLACE FUNCTION log.es_note_cluster(in_log smallint) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    here record;
    noted record;
BEGIN
    SELECT * INTO here FROM es_whereabouts();
    SELECT l.epoch, l.system_identifier, l.timeline, l.relation INTO noted FROM es_log AS l WHERE l.log_id = in_log;
    IF (noted.system_identifier, noted.timeline, noted.relation) = (here.system, here.line, here.relation) THEN
        RETURN noted.epoch;
    END IF;
    PERFORM pg_advisory_xact_lock(4711, in_log);
    UPDATE es_log AS l
       SET epoch = l.epoch + CASE
               WHEN l.system_identifier IN ('', here.system) AND l.timeline IN (0, here.line)
                    AND l.relation IN ('', here.relation) THEN 0
               ELSE 1 END,
           system_identifier = here.system, timeline = here.line, relation = here.relation
     WHERE true;
    RETURN (SELECT l.epoch FROM es_log AS l WHERE l.log_id = in_log);
END $$;

-- Raises the epoch of all logs because somebody saw that one went back in time, unless it was raised since `seen`; answers it.
CREATE OR REPLACE FUNCTION log.es_raise_epoch(in_log smallint, seen integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    now_at integer;
BEGIN
    PERFORM pg_advisory_xact_lock(4711, in_log);
    UPDATE es_log AS l SET epoch = l.epoch + (l.epoch = seen)::integer WHERE true;
    SELECT l.epoch INTO now_at FROM es_log AS l WHERE l.log_id = in_log;
    RETURN now_at;
END $$;
