-- A set is a long list of the streams that an event refers to and needs. It is stored in slices before the append, as
-- content is, and the append names it. An event refers to a set by the target 'set-<digest>'. `idle_since` lists the sets
-- to which perhaps no stream refers: from their beginning, and again when a reference goes (see es_write_events). So a sweep
-- looks at no others.
CREATE OR REPLACE FUNCTION log.es_begin_set(in_digest text, moment timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    found_set record;
BEGIN
    LOOP
        INSERT INTO es_set (digest, idle_since) VALUES (in_digest, moment) ON CONFLICT (digest) DO NOTHING;
        -- A set that was listed as idle is wanted again: no sweep may take it before it is named.
        UPDATE es_set AS s SET idle_since = moment
         WHERE s.digest = in_digest AND s.idle_since < moment - interval '1 hour';
        SELECT s.id, s.complete INTO found_set FROM es_set AS s WHERE s.digest = in_digest;
        -- If no row was found, a sweep has let go of the set at this moment.
        EXIT WHEN FOUND;
    END LOOP;
    RETURN CASE WHEN found_set.complete THEN NULL ELSE found_set.id END;
END $$;

-- Adds members; writing one again changes nothing. They are not flushed, because the append that names the set flushes.
CREATE OR REPLACE FUNCTION log.es_put_members(
    of_set bigint, targets text[], referred boolean[], refs text[], or_targets text[], or_refs text[], needs integer[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- A set that a sweep lets go of at this moment takes no more members: nobody would delete them.
    PERFORM FROM es_set AS s WHERE s.id = of_set AND s.digest IS NOT NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO es_set_member (set_id, target, refers, ref, or_target, or_ref, need)
    SELECT of_set, m.* FROM unnest(targets, referred, refs, or_targets, or_refs, needs) AS m
        ON CONFLICT DO NOTHING;
END $$;

-- Lets the set be named from now on; false if it does not have so many members, or was swept meanwhile.
CREATE OR REPLACE FUNCTION log.es_finish_set(of_set bigint, members bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
BEGIN
    UPDATE es_set AS s SET complete = true
     WHERE s.id = of_set AND s.digest IS NOT NULL
       AND members = (SELECT count(*) FROM es_set_member AS m WHERE m.set_id = of_set);
    RETURN FOUND;
END $$;

-- Answers the needs of a set that do not hold, the position of the log up to which they were judged, and the mark of that
-- log. es_set_holds judges later events. The position is read first, by a statement of its own, so that no event up to it
-- is overlooked. It is null if the set is not there whole, as after a sweep; one statement looks at the whole set, so that
-- no part of a set is taken for it.
CREATE OR REPLACE FUNCTION log.es_judge_set(
    in_log smallint, of_digest text, OUT seen bigint, OUT failed integer[], OUT judged_in text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp AS $$
DECLARE
    members bigint;
BEGIN
    SELECT es_log_mark(in_log), coalesce(max(e.position), 0) INTO judged_in, seen
      FROM es_event AS e WHERE e.log_id = in_log;
    SELECT count(*), array_agg(DISTINCT m.need) FILTER (
               WHERE m.need IS NOT NULL AND NOT es_member_holds(in_log, m.target, m.ref, m.or_target, m.or_ref))
      INTO members, failed
      FROM es_set AS s JOIN es_set_member AS m ON m.set_id = s.id
     WHERE s.digest = of_digest AND s.complete;
    IF members = 0 THEN
        seen := NULL;
    END IF;
END $$;

-- True if one of the two streams that would do has the ref that it must have.
CREATE OR REPLACE FUNCTION log.es_member_holds(
    in_log smallint, target text, wanted text, or_target text, or_wanted text
) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT (SELECT s.ref FROM log.es_stream AS s WHERE s.log_id = in_log AND s.stream = target) IS NOT DISTINCT FROM wanted
        OR or_target IS NOT NULL
           AND (SELECT s.ref FROM log.es_stream AS s WHERE s.log_id = in_log AND s.stream = or_target)
               IS NOT DISTINCT FROM or_wanted
$$;

-- True if everything that a set needs stands, given that it did at position `seen` of the log with the mark `judged_in`.
-- Only later events are looked at. A judgement of another log, from before a restore, does not hold. The release before
-- does not say which log it judged (null or empty). All streams of the set are of one key. The caller holds the append
-- lock.
CREATE OR REPLACE FUNCTION log.es_set_holds(
    in_log smallint, of_digest text, of_key text, seen bigint, judged_in text
) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    own bigint;
    broken boolean;
BEGIN
    SELECT s.id INTO own FROM log.es_set AS s WHERE s.digest = of_digest AND s.complete;
    IF NOT FOUND OR judged_in <> '' AND judged_in <> log.es_log_mark(in_log) THEN
        RETURN false;
    END IF;
    -- EXECUTE: see es_refusal.
    EXECUTE $q$
        SELECT EXISTS (
            SELECT FROM log.es_event AS e
             WHERE e.log_id = $1 AND e.key = $2 AND e.position > $3 AND e.sets_ref AND e.ref IS DISTINCT FROM e.prev_ref
               AND EXISTS (SELECT FROM log.es_set_member AS m
                            WHERE m.set_id = $4 AND m.target = e.stream AND m.need IS NOT NULL
                              AND NOT log.es_member_holds($1, m.target, m.ref, m.or_target, m.or_ref) OFFSET 0))
    $q$ INTO broken USING in_log, of_key, seen, own;
    RETURN NOT broken;
END $$;

-- Does one step of sweeping sets. If a set was let go of, up to `most` of its members are deleted. Otherwise the step looks
-- at the set that has been listed as idle for longest, since before `before`: if no stream refers to it, it is let go of,
-- otherwise it leaves the list. Appends wait only for the moment in which a set is let go of; then its digest is free for
-- another set. Answers the number of sets that are gone, and true if there may be more to do.
CREATE OR REPLACE FUNCTION log.es_sweep_sets(
    in_log smallint, before timestamptz, most integer, OUT removed integer, OUT more boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = log, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    own bigint;
    listed_at timestamptz;
    deleted integer;
BEGIN
    removed := 0;
    more := true;
    SELECT s.id INTO own FROM es_set AS s WHERE s.digest IS NULL LIMIT 1;
    IF FOUND THEN
        DELETE FROM es_set_member AS m
         WHERE m.set_id = own AND m.target IN (SELECT n.target FROM es_set_member AS n WHERE n.set_id = own LIMIT most);
        GET DIAGNOSTICS deleted = ROW_COUNT;
        IF deleted < most THEN
            DELETE FROM es_set AS s WHERE s.id = own;
            removed := 1;
        END IF;
        RETURN;
    END IF;
    SELECT s.id, s.idle_since INTO own, listed_at
      FROM es_set AS s WHERE s.idle_since < before ORDER BY s.idle_since LIMIT 1;
    IF NOT FOUND THEN
        more := false;
        RETURN;
    END IF;
    -- If somebody has listed it anew meanwhile, it stays on the list, and a later sweep looks at it again.
    UPDATE es_set AS s SET idle_since = NULL
     WHERE s.id = own AND s.idle_since = listed_at
       AND EXISTS (SELECT FROM es_ref AS r WHERE r.log_id = in_log AND r.target = 'set-' || s.digest);
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock(4711, in_log);
        UPDATE es_set AS s SET digest = NULL, idle_since = NULL
         WHERE s.id = own AND s.idle_since = listed_at
           AND NOT EXISTS (SELECT FROM es_ref AS r WHERE r.log_id = in_log AND r.target = 'set-' || s.digest);
    END IF;
END $$;
