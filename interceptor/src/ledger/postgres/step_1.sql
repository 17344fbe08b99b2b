-- One row per exchange. `tx` is what other nodes read on from: what their last snapshot did not
-- show. `presumed` is what was in flight when its node was given up; it gives way to what that node
-- tells when it comes back. `charges` is what it takes out of which accounts.
CREATE TABLE weir.exchange (
    id text PRIMARY KEY,
    tx xid8 NOT NULL,
    presumed boolean NOT NULL,
    charges jsonb NOT NULL,
    instance text NOT NULL,
    started_ms bigint NOT NULL
);
CREATE INDEX exchange_started ON weir.exchange (started_ms);
CREATE INDEX exchange_tx ON weir.exchange (tx);

-- What is in flight: the row that it will be if nothing more is heard of it.
CREATE TABLE weir.admission (
    id text PRIMARY KEY,
    instance text NOT NULL,
    exchange jsonb NOT NULL
);
CREATE INDEX admission_instance ON weir.admission (instance);

-- Up to where each journal is committed, so that nothing of it is counted twice.
CREATE TABLE weir.journal (
    instance text PRIMARY KEY,
    segment bigint NOT NULL,
    "end" bigint NOT NULL
);

CREATE TABLE weir.bypass (
    minute_ms bigint NOT NULL,
    program text NOT NULL, host text NOT NULL, reason text NOT NULL, destination text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (minute_ms, program, host, reason, destination)
);

-- Weir processes, and until when each is believed to live; null once it has ended or was given up.
CREATE TABLE weir.holder (
    id text PRIMARY KEY,
    epoch bigint NOT NULL,
    lives_until timestamptz
);

-- Accounts of caps; a row is what decisions on it queue for.
CREATE TABLE weir.account (
    id text PRIMARY KEY,
    seeded boolean NOT NULL DEFAULT false
);

CREATE TABLE weir.lease (
    account text NOT NULL,
    holder text NOT NULL,
    number bigint NOT NULL,
    allowed bigint NOT NULL,
    PRIMARY KEY (account, holder)
);
CREATE INDEX lease_holder ON weir.lease (holder);

CREATE TABLE weir.spent (
    account text NOT NULL,
    holder text NOT NULL,
    at_ms bigint NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (account, holder, at_ms)
);

CREATE FUNCTION weir.register(who text, as_epoch bigint, lease_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO weir.holder AS h VALUES (who, as_epoch, now() + lease_ms * interval '1 ms')
    ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, lives_until = excluded.lives_until
    WHERE h.epoch < excluded.epoch;
    IF FOUND THEN
        DELETE FROM weir.lease WHERE holder = who;
        RETURN true;
    END IF;
    RETURN weir.renew(who, as_epoch, lease_ms);
END $$;

CREATE FUNCTION weir.renew(who text, as_epoch bigint, lease_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE weir.holder SET lives_until = now() + lease_ms * interval '1 ms'
    WHERE id = who AND epoch = as_epoch AND lives_until IS NOT NULL;
    RETURN FOUND;
END $$;

CREATE FUNCTION weir.take(
    of_account text, who text, as_epoch bigint, question bigint, at_least bigint, at_most bigint,
    limit_of_all bigint, from_ms bigint, seed bigint, free_share bigint,
    OUT state text, OUT now_allowed bigint, OUT now_spent bigint, OUT now_held bigint
) LANGUAGE plpgsql AS $$
DECLARE
    was_seeded boolean;
    known numeric;
    others numeric;
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
            INSERT INTO weir.spent AS s VALUES (of_account, '', from_ms, seed - known)
            ON CONFLICT (account, holder, at_ms) DO UPDATE SET amount = s.amount + excluded.amount;
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
    INTO others, now_spent, now_held
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
        now_held := now_held - was.allowed + now_allowed;
    ELSE
        state := 'granted';
        now_allowed := greatest(at_least, least(at_most::numeric,
            greatest(was.allowed, at_least + div(free - at_least, free_share))));
    END IF;
    UPDATE weir.lease SET number = question, allowed = now_allowed
    WHERE account = of_account AND holder = who;
END $$;

-- Charges what exchanges take out of accounts; with a minus, gives it back.
CREATE FUNCTION weir.charge(who text, charges jsonb, sign bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO weir.spent AS s
    SELECT c.account, who, c.at_ms, sign * sum(c.amount)
    FROM jsonb_to_recordset(charges) AS c (account text, at_ms bigint, amount bigint)
    GROUP BY c.account, c.at_ms
    ORDER BY c.account, c.at_ms
    ON CONFLICT (account, holder, at_ms) DO UPDATE SET amount = s.amount + excluded.amount;
$$;

-- Takes in entries of one journal, between two positions of it; returns up to where it is taken
-- in. Where that is not `to_…`, these entries were taken in before, or some of them.
CREATE FUNCTION weir.ship(
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
CREATE FUNCTION weir.end_holder(who text, only_if_silent boolean) RETURNS bigint
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
    base.tx := pg_current_xact_id();
    base.presumed := true;
    base.charges := '[]';
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

-- The nodes to give up.
CREATE FUNCTION weir.silent() RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT id FROM weir.holder WHERE lives_until < now()
    UNION
    SELECT a.instance FROM weir.admission AS a LEFT JOIN weir.holder AS h ON h.id = a.instance
    WHERE h.lives_until IS NULL
$$;
