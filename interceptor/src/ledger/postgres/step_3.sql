-- Drops what the books have of windows that are over, at most so many rows of each table at once: of
-- calendar windows that began before a moment, of rolling ones what was spent before another. Also
-- nodes that have ended and left nothing. Returns how many rows those were.
CREATE FUNCTION weir.purge(
    calendar_before_ms bigint, rolling_before_ms bigint, most bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    all_gone bigint := 0;
BEGIN
    DELETE FROM weir.spent WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.spent
        -- What counts for ever began before time did.
        WHERE at_ms > -9223372036854775808 AND at_ms <
            CASE WHEN account LIKE '%:rolling:%' THEN rolling_before_ms ELSE calendar_before_ms END
        LIMIT most
    ));
    GET DIAGNOSTICS gone = ROW_COUNT;
    all_gone := all_gone + gone;
    DELETE FROM weir.lease WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.lease WHERE weir.began_ms(account) < calendar_before_ms LIMIT most
    ));
    GET DIAGNOSTICS gone = ROW_COUNT;
    all_gone := all_gone + gone;
    DELETE FROM weir.account WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.account WHERE weir.began_ms(id) < calendar_before_ms LIMIT most
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

-- When the window of an account began, by its name: none of one that rolls or never ends.
CREATE FUNCTION weir.began_ms(account text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN split_part(account, ':', 3) ~ '^[0-9]{1,18}$'
        THEN split_part(account, ':', 3)::bigint END
$$;

-- Slices that nobody holds any more, which should be none: of nodes that have ended, or are silent for
-- so long that they are to be given up.
CREATE FUNCTION weir.ownerless() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM weir.lease AS l LEFT JOIN weir.holder AS h ON h.id = l.holder
    WHERE l.allowed > 0 AND coalesce(h.lives_until < now(), true)
$$;
