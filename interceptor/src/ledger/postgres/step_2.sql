-- What people changed of caps. `seen` is what was recorded before: a reset forgets that, and no more.
CREATE TABLE weir.cap_change (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seen pg_snapshot NOT NULL,
    at_ms bigint NOT NULL,
    cap text NOT NULL,
    scope text,
    kind text NOT NULL,
    nanos bigint NOT NULL, tokens bigint NOT NULL, calls bigint NOT NULL,
    until_ms bigint,
    author text NOT NULL,
    reason text NOT NULL
);

-- Writes a change down. A reset takes out of the books what is spent in the accounts that are like one
-- of `accounts`; slices stay as they are, and hold what they allow.
CREATE FUNCTION weir.change_cap(
    change jsonb, accounts text[], OUT number bigint
) LANGUAGE plpgsql AS $$
BEGIN
    IF change ->> 'kind' = 'reset' THEN
        -- What is recorded and what is charged for it are seen together or not at all. In the order
        -- in which all others take them.
        LOCK TABLE weir.exchange, weir.spent IN SHARE ROW EXCLUSIVE MODE;
        DELETE FROM weir.spent WHERE account LIKE ANY (accounts);
        -- What a node tells in the end replaces what was presumed of it, of which nothing is left.
        UPDATE weir.exchange SET charges = (
            SELECT coalesce(jsonb_agg(c), '[]') FROM jsonb_array_elements(charges) AS c
            WHERE NOT c ->> 'account' LIKE ANY (accounts)
        ) WHERE presumed AND charges <> '[]';
    END IF;
    INSERT INTO weir.cap_change
        (seen, at_ms, cap, scope, kind, nanos, tokens, calls, until_ms, author, reason)
    SELECT pg_current_snapshot(), c.at_ms, c.cap, c.scope, c.kind, c.nanos, c.tokens, c.calls,
        c.until_ms, c.author, c.reason
    FROM jsonb_populate_record(NULL::weir.cap_change, change) AS c
    RETURNING seq INTO number;
END $$;
