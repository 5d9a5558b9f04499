-- Makes a new secret if the newest one is older than `period`, and removes those that were replaced more than `kept` ago;
-- answers the number of those. The database makes secrets, so that no statement has them. The newest one always stays.
CREATE OR REPLACE FUNCTION log.es_rotate_seal_keys(moment timestamptz, period interval, kept interval) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    newest timestamptz;
    removed integer;
BEGIN
    PERFORM pg_advisory_xact_lock(4715);
    SELECT k.made_at INTO newest FROM es_seal_key AS k ORDER BY k.id DESC LIMIT 1;
    -- A secret from the future was made by a wrong clock.
    IF newest IS NULL OR newest NOT BETWEEN moment - period AND moment + period THEN
        INSERT INTO es_seal_key (secret, made_at)
        SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), moment;
    END IF;
    DELETE FROM es_seal_key AS k
     WHERE EXISTS (SELECT FROM es_seal_key AS s WHERE s.id > k.id AND s.made_at <= moment - kept);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;
