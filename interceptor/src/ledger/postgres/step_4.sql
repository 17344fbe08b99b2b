-- After which reset a row was recorded: what stands beside `seen` as a number survives a dump, whereas
-- the transactions of a restored database begin anew, below all that any snapshot of before shows.
ALTER TABLE weir.exchange ADD COLUMN after_change bigint NOT NULL DEFAULT 0;
UPDATE weir.exchange AS e SET after_change = (
    SELECT max(c.seq) FROM weir.cap_change AS c
    WHERE c.kind = 'reset' AND NOT pg_visible_in_snapshot(e.tx, c.seen)
) WHERE EXISTS (
    SELECT 1 FROM weir.cap_change AS c
    WHERE c.kind = 'reset' AND NOT pg_visible_in_snapshot(e.tx, c.seen)
);

-- What a reset looks for, and what a rolling window is summed up by.
CREATE INDEX exchange_presumed ON weir.exchange (id) WHERE presumed;
CREATE INDEX spent_at ON weir.spent (account, at_ms);

-- The latest reset. Whoever asks has locked `weir.exchange` as writers do, so that none comes between.
CREATE FUNCTION weir.last_reset() RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(max(seq), 0) FROM weir.cap_change WHERE kind = 'reset'
$$;

-- The nearest number that a column of the books can hold: absurd usage stops no journal.
CREATE FUNCTION weir.clamped(number numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT least(greatest(number, -9223372036854775807), 9223372036854775807)::bigint
$$;

CREATE OR REPLACE FUNCTION weir.take(
    of_account text, who text, as_epoch bigint, question bigint, at_least bigint, at_most bigint,
    limit_of_all bigint, from_ms bigint, seed bigint, free_share bigint,
    OUT state text, OUT now_allowed bigint, OUT now_spent bigint, OUT now_held bigint
) LANGUAGE plpgsql AS $$
DECLARE
    was_seeded boolean;
    known numeric;
    others numeric;
    all_spent numeric;
    all_held numeric;
    free numeric;
    was weir.lease;
BEGIN
    -- Shared, so that who gives this holder up waits until this is done, and then sees it.
    PERFORM 1 FROM weir.holder
    WHERE id = who AND epoch = as_epoch AND lives_until IS NOT NULL FOR SHARE;
    IF NOT FOUND THEN
        state := 'unknown';
        RETURN;
    END IF;
    INSERT INTO weir.account VALUES (of_account) ON CONFLICT DO NOTHING;
    SELECT seeded INTO was_seeded FROM weir.account WHERE id = of_account FOR UPDATE;
    IF NOT was_seeded THEN
        UPDATE weir.account SET seeded = true WHERE id = of_account;
        SELECT coalesce(sum(amount), 0) INTO known
        FROM weir.spent WHERE account = of_account AND at_ms >= from_ms;
        IF seed > known THEN
            INSERT INTO weir.spent AS s
            VALUES (of_account, '', from_ms, weir.clamped(seed - known))
            ON CONFLICT (account, holder, at_ms)
            DO UPDATE SET amount = weir.clamped(s.amount::numeric + excluded.amount);
        END IF;
    END IF;
    INSERT INTO weir.lease VALUES (of_account, who, 0, 0) ON CONFLICT DO NOTHING;
    SELECT * INTO was FROM weir.lease WHERE account = of_account AND holder = who;
    IF question <= was.number THEN
        state := 'stale';
        RETURN;
    END IF;
    SELECT coalesce(sum(greatest(allowed, spent)) FILTER (WHERE holder <> who), 0),
           coalesce(sum(spent), 0),
           coalesce(sum(greatest(allowed, spent)) - sum(spent), 0)
    INTO others, all_spent, all_held
    FROM (
        SELECT holder, sum(allowed) AS allowed, sum(spent) AS spent FROM (
            SELECT holder, allowed, 0 AS spent FROM weir.lease WHERE account = of_account
            UNION ALL
            SELECT holder, 0, amount FROM weir.spent
            WHERE account = of_account AND at_ms >= from_ms
        ) AS rights GROUP BY holder
    ) AS totals;
    free := limit_of_all - others;
    IF free < at_least THEN
        state := 'short';
        now_allowed := least(was.allowed, at_most);
        all_held := all_held - was.allowed + now_allowed;
    ELSE
        state := 'granted';
        now_allowed := greatest(at_least, least(at_most::numeric,
            greatest(was.allowed, at_least + div(free - at_least, free_share))));
    END IF;
    now_spent := weir.clamped(all_spent);
    now_held := weir.clamped(all_held);
    UPDATE weir.lease SET number = question, allowed = now_allowed
    WHERE account = of_account AND holder = who;
END $$;

-- Charges what exchanges take out of accounts; with a minus, gives it back.
CREATE OR REPLACE FUNCTION weir.charge(who text, charges jsonb, sign bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO weir.spent AS s
    SELECT c.account, who, c.at_ms, weir.clamped(sign * sum(c.amount))
    FROM jsonb_to_recordset(charges) AS c (account text, at_ms bigint, amount bigint)
    GROUP BY c.account, c.at_ms
    ORDER BY c.account, c.at_ms
    ON CONFLICT (account, holder, at_ms)
    DO UPDATE SET amount = weir.clamped(s.amount::numeric + excluded.amount);
$$;

-- Takes in entries of one journal, between two positions of it; returns up to where it is taken
-- in. Where that is not `to_…`, these entries were taken in before, or some of them.
CREATE OR REPLACE FUNCTION weir.ship(
    who text, from_segment bigint, from_end bigint, to_segment bigint, to_end bigint,
    exchanges jsonb, admissions jsonb, bypasses jsonb,
    OUT at_segment bigint, OUT at_end bigint
) LANGUAGE plpgsql AS $$
DECLARE
    base weir.exchange;
    one record;
BEGIN
    IF to_segment IS NOT NULL THEN
        INSERT INTO weir.journal VALUES (who, from_segment, from_end) ON CONFLICT DO NOTHING;
        UPDATE weir.journal SET segment = to_segment, "end" = to_end
        WHERE instance = who AND (segment, "end") <= (from_segment, from_end);
        IF NOT FOUND THEN
            SELECT segment, "end" INTO at_segment, at_end FROM weir.journal WHERE instance = who;
            RETURN;
        END IF;
    END IF;
    at_segment := to_segment;
    at_end := to_end;
    FOR one IN
        DELETE FROM weir.exchange AS e USING jsonb_array_elements(exchanges) AS told
        WHERE e.id = told ->> 'id' AND e.presumed RETURNING e.instance, e.charges
    LOOP
        PERFORM weir.charge(one.instance, one.charges, -1);
    END LOOP;
    DELETE FROM weir.admission AS a USING jsonb_array_elements(exchanges) AS told
    WHERE a.id = told ->> 'id';
    base.tx := pg_current_xact_id();
    base.presumed := false;
    base.charges := '[]';
    base.after_change := weir.last_reset();
    WITH new AS (
        INSERT INTO weir.exchange
        SELECT told.* FROM jsonb_populate_recordset(base, exchanges) AS told
        ON CONFLICT (id) DO NOTHING RETURNING charges
    )
    SELECT jsonb_agg(c) AS charges INTO one FROM new, jsonb_array_elements(new.charges) AS c;
    IF one.charges IS NOT NULL THEN
        PERFORM weir.charge(who, one.charges, 1);
    END IF;
    INSERT INTO weir.admission
    SELECT a ->> 'id', who, a FROM jsonb_array_elements(admissions) AS a
    WHERE NOT EXISTS (SELECT 1 FROM weir.exchange AS e WHERE e.id = a ->> 'id')
    ON CONFLICT (id) DO UPDATE SET instance = excluded.instance, exchange = excluded.exchange;
    INSERT INTO weir.bypass AS b (minute_ms, program, host, reason, destination, count)
    SELECT minute_ms, program, host, reason, destination, count
    FROM jsonb_populate_recordset(NULL::weir.bypass, bypasses)
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (minute_ms, program, host, reason, destination)
    DO UPDATE SET count = b.count + excluded.count;
END $$;

-- Ends a node, or gives it up if it was silent for too long: what it has in flight counts as spent,
-- its slices return. Returns how many calls that were.
CREATE OR REPLACE FUNCTION weir.end_holder(who text, only_if_silent boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    base weir.exchange;
    one record;
    lost bigint := 0;
BEGIN
    PERFORM 1 FROM weir.holder WHERE id = who FOR UPDATE;
    UPDATE weir.holder SET lives_until = NULL
    WHERE id = who AND (NOT only_if_silent OR lives_until < now());
    IF EXISTS (SELECT 1 FROM weir.holder WHERE id = who AND lives_until IS NOT NULL) THEN
        RETURN 0;
    END IF;
    LOCK TABLE weir.exchange IN ROW EXCLUSIVE MODE;
    base.tx := pg_current_xact_id();
    base.presumed := true;
    base.charges := '[]';
    base.after_change := weir.last_reset();
    FOR one IN DELETE FROM weir.admission WHERE instance = who RETURNING exchange LOOP
        INSERT INTO weir.exchange
        SELECT lost_one.* FROM jsonb_populate_record(base, one.exchange) AS lost_one
        ON CONFLICT (id) DO NOTHING;
        IF FOUND THEN
            PERFORM weir.charge(who, coalesce(one.exchange -> 'charges', '[]'), 1);
            lost := lost + 1;
        END IF;
    END LOOP;
    DELETE FROM weir.lease WHERE holder = who;
    RETURN lost;
END $$;
