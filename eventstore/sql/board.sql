-- The database's side of the change board (rules: places have epochs; appends need the board). One server at a time
-- registers its board, for a time. Each process of that server which appends has a place on the board, and each
-- connection of such a process has an epoch of that place.
--
-- The margin is there because of two clocks. A reader counts the lease from before its renewal was asked for, by a clock
-- that nobody sets. So the lease ends there before it ends here, unless the two clocks drift apart by more than the margin
-- within one lease.
CREATE OR REPLACE FUNCTION log.es_board_margin() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '2 seconds' $$;

-- True if the board is the registered one, false if none is registered. Then nobody's lease runs, because only a row that
-- is there can be renewed. Raises if another board is registered. The caller holds the append lock.
CREATE OR REPLACE FUNCTION log.es_registered(in_log smallint, by_board text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    standing record;
BEGIN
    SELECT b.board, b.until INTO standing FROM log.es_board AS b WHERE b.log_id = in_log;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF by_board = standing.board THEN
        RETURN true;
    END IF;
    -- The deletion judges the row again once it has locked it: the owner may be renewing it at this moment.
    DELETE FROM log.es_board AS b
     WHERE b.log_id = in_log AND b.until + log.es_board_margin() < clock_timestamp();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another server, which keeps answers, has this log to itself until %', standing.until
            USING ERRCODE = 'TT005';
    END IF;
    RETURN false;
END $$;

-- Raises unless the append under way may go on.
CREATE OR REPLACE FUNCTION log.es_admit(in_log smallint, by_board text, by_place smallint, by_epoch bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- This is nearly always so, and one statement tells it.
    PERFORM FROM log.es_board AS b
      WHERE b.log_id = in_log AND b.board = by_board
        AND (SELECT w.epoch FROM log.es_writer AS w
              WHERE w.log_id = in_log AND w.place = by_place AND w.board = by_board) = by_epoch;
    IF FOUND THEN
        RETURN;
    END IF;
    IF log.es_registered(in_log, by_board) THEN
        PERFORM FROM log.es_writer AS w
          WHERE w.log_id = in_log AND w.place = by_place AND w.board = by_board AND w.epoch = by_epoch;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'place % of the board was taken over', by_place USING ERRCODE = 'TT004';
        END IF;
    END IF;
END $$;

-- Registers a board for `seconds`; answers null, or else the number of seconds for which another one is in the way. An
-- earlier board of the same owner is replaced: the caller has made sure that no process reads it any more.
CREATE OR REPLACE FUNCTION log.es_register_board(in_log smallint, new_board text, new_owner text, seconds double precision)
RETURNS double precision
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    left_s double precision;
BEGIN
    PERFORM pg_advisory_xact_lock(4711, in_log);
    SELECT extract(epoch FROM b.until + es_board_margin() - clock_timestamp()) INTO left_s
      FROM es_board AS b WHERE b.log_id = in_log AND b.owner <> new_owner FOR UPDATE;
    IF left_s > 0 THEN
        RETURN left_s;
    END IF;
    INSERT INTO es_board AS b (log_id, board, owner, until)
    VALUES (in_log, new_board, new_owner, clock_timestamp() + make_interval(secs => seconds))
    ON CONFLICT (log_id) DO UPDATE SET board = excluded.board, owner = excluded.owner, until = excluded.until;
    DELETE FROM es_writer AS w WHERE w.log_id = in_log AND w.board <> new_board;
    RETURN NULL;
END $$;

-- Lets the lease of a board run for `seconds` from now; false if it is not registered any more.
CREATE OR REPLACE FUNCTION log.es_renew_board(in_log smallint, of_board text, seconds double precision) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    UPDATE es_board AS b SET until = clock_timestamp() + make_interval(secs => seconds)
     WHERE b.log_id = in_log AND b.board = of_board;
    RETURN FOUND;
END $$;

-- Removes the board of an owner, none of whose processes reads it any more, so that the next registration need not wait.
CREATE OR REPLACE FUNCTION log.es_remove_board(in_log smallint, of_owner text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(4711, in_log);
    DELETE FROM es_board AS b WHERE b.log_id = in_log AND b.owner = of_owner;
END $$;

-- A new epoch of a place. Once this has committed, every append of an earlier one is committed or will be refused.
CREATE OR REPLACE FUNCTION log.es_claim_place(in_log smallint, of_board text, at_place smallint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    now_at bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(4711, in_log);
    PERFORM es_registered(in_log, of_board);
    INSERT INTO es_writer AS w (log_id, place, board, epoch) VALUES (in_log, at_place, of_board, 1)
    ON CONFLICT (log_id, place) DO UPDATE SET board = excluded.board, epoch = w.epoch + 1
    RETURNING w.epoch INTO now_at;
    RETURN now_at;
END $$;
