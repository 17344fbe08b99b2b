-- For how long something counts in an account, by its name: of a rolling window its length and one step of it, which
-- older names do not tell; of one of the calendar, a month at most.
CREATE FUNCTION weir.counts_for_ms(account text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN w ~ '^rolling[0-9]{1,9}$' THEN substr(w, 8)::bigint * 1000 * 25 / 24
        WHEN w = 'rolling' THEN 382 * 86400000::bigint
        ELSE 31 * 86400000::bigint
    END FROM split_part(account, ':', 3) AS w
$$;

-- Drops what the books have of windows that were over before a moment, at most so many rows of each table at once,
-- and nodes that have ended and left nothing. Returns how many rows those were; none while somebody else is at it.
-- Nodes of an older version go on calling the function with three arguments.
CREATE FUNCTION weir.purge(before_ms bigint, most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    all_gone bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('weir.purge')) THEN
        RETURN 0;
    END IF;
    DELETE FROM weir.spent WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.spent
        -- What counts for ever began before time did.
        WHERE at_ms > -9223372036854775808 AND at_ms < before_ms - weir.counts_for_ms(account)
        LIMIT most
    ));
    GET DIAGNOSTICS gone = ROW_COUNT;
    all_gone := all_gone + gone;
    DELETE FROM weir.lease WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.lease
        WHERE weir.began_ms(account) < before_ms - weir.counts_for_ms(account) LIMIT most
    ));
    GET DIAGNOSTICS gone = ROW_COUNT;
    all_gone := all_gone + gone;
    DELETE FROM weir.account WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.account
        WHERE weir.began_ms(id) < before_ms - weir.counts_for_ms(id) LIMIT most
    ));
    GET DIAGNOSTICS gone = ROW_COUNT;
    all_gone := all_gone + gone;
    DELETE FROM weir.holder AS h WHERE lives_until IS NULL
        AND NOT EXISTS (SELECT 1 FROM weir.journal WHERE instance = h.id)
        AND NOT EXISTS (SELECT 1 FROM weir.admission WHERE instance = h.id)
        AND NOT EXISTS (SELECT 1 FROM weir.lease WHERE holder = h.id);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN all_gone + gone;
END $$;

-- When a change was written down, by the one clock that all nodes share.
ALTER TABLE weir.cap_change ADD COLUMN written_at timestamptz NOT NULL DEFAULT now();

-- Drops accounts of rolling windows of which nothing is spent or leased. The next who asks of one says again what is
-- known to be spent in it; so none goes while somebody may not have heard of a reset. To be called by itself: whoever
-- has written to the table of accounts before and waits here keeps another one waiting who has, too. Those that ask
-- of accounts wait for it no longer than it may wait: where it has to, it drops nothing.
CREATE FUNCTION weir.purge_rolling(most bigint) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '200ms' AS $$
DECLARE
    idle text[];
BEGIN
    IF EXISTS (
        SELECT 1 FROM weir.cap_change
        WHERE kind = 'reset' AND written_at > now() - interval '1 hour'
    ) THEN
        RETURN 0;
    END IF;
    idle := ARRAY(SELECT id FROM weir.idle_rolling(most) AS id);
    IF idle = '{}' THEN
        RETURN 0;
    END IF;
    -- Whoever asks of an account writes to this table first, and is done before this goes on, or waits for it.
    LOCK TABLE weir.account IN SHARE ROW EXCLUSIVE MODE;
    idle := ARRAY(SELECT id FROM weir.idle_rolling(most) AS id WHERE id = ANY (idle));
    DELETE FROM weir.lease WHERE account = ANY (idle);
    DELETE FROM weir.account WHERE id = ANY (idle);
    RETURN cardinality(idle);
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END $$;

CREATE FUNCTION weir.idle_rolling(most bigint) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT id FROM weir.account AS a WHERE split_part(id, ':', 3) LIKE 'rolling%'
        AND NOT EXISTS (SELECT 1 FROM weir.spent AS s WHERE s.account = a.id)
        AND NOT EXISTS (SELECT 1 FROM weir.lease AS l WHERE l.account = a.id AND l.allowed > 0)
    LIMIT most
$$;

-- Slices that nobody holds any more, as before: looked for by the few holders that there are, and not among all slices.
CREATE OR REPLACE FUNCTION weir.ownerless() RETURNS bigint LANGUAGE sql STABLE AS $$
    WITH RECURSIVE holding AS (
        SELECT min(holder) AS id FROM weir.lease
        UNION ALL
        SELECT (SELECT min(holder) FROM weir.lease WHERE holder > id) FROM holding WHERE id IS NOT NULL
    )
    SELECT count(*) FROM weir.lease
    WHERE allowed > 0 AND holder IN (
        SELECT id FROM holding LEFT JOIN weir.holder AS h USING (id) WHERE coalesce(h.lives_until < now(), true)
    )
$$;

-- A reset that has to wait gives up before whoever typed it does, who could not tell else whether it holds.
ALTER FUNCTION weir.change_cap(jsonb, text[]) SET lock_timeout = '2s';

-- As the one with ten arguments, which nodes of an older version go on calling; but what the first who asks says was
-- spent counts at `seed_ms`, since a rolling window begins later for whoever asks next.
CREATE FUNCTION weir.take(
    of_account text, who text, as_epoch bigint, question bigint, at_least bigint, at_most bigint,
    limit_of_all bigint, from_ms bigint, seed bigint, seed_ms bigint, free_share bigint,
    OUT state text, OUT now_allowed bigint, OUT now_spent bigint, OUT now_held bigint
) LANGUAGE plpgsql AS $$
DECLARE
    known numeric;
BEGIN
    PERFORM 1 FROM weir.holder
    WHERE id = who AND epoch = as_epoch AND lives_until IS NOT NULL FOR SHARE;
    IF FOUND THEN
        INSERT INTO weir.account VALUES (of_account) ON CONFLICT DO NOTHING;
        UPDATE weir.account SET seeded = true WHERE id = of_account AND NOT seeded;
        IF FOUND THEN
            SELECT coalesce(sum(amount), 0) INTO known
            FROM weir.spent WHERE account = of_account AND at_ms >= from_ms;
            IF seed > known THEN
                INSERT INTO weir.spent AS s
                VALUES (of_account, '', seed_ms, weir.clamped(seed - known))
                ON CONFLICT (account, holder, at_ms)
                DO UPDATE SET amount = weir.clamped(s.amount::numeric + excluded.amount);
            END IF;
        END IF;
    END IF;
    SELECT t.* INTO state, now_allowed, now_spent, now_held
    FROM weir.take(
        of_account, who, as_epoch, question, at_least, at_most, limit_of_all, from_ms, 0, free_share
    ) AS t;
END $$;
