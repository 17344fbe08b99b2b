-- What conversations were given that are edited, sealed by the nodes under a secret that is not here:
-- a conversation by the keyed hash of its beginning, a set of rules by its name. Each write has a `version`
-- of its own, so that of two nodes that write at once the second one looks again: it goes up, and begins
-- at the microseconds since 1970, not at 1, so that a row that was purged and written anew, or restored
-- from a copy, has no version by which a node remembers an earlier row.
CREATE TABLE weir.conversation (
    key bytea PRIMARY KEY,
    sealed bytea NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX conversation_updated ON weir.conversation (updated_at);

-- Drops conversations in which nothing was told for `days`, and the oldest of more than `kept`, or of
-- more than `bytes` together, about, at most `most` rows at once. Returns how many those were.
CREATE FUNCTION weir.purge_conversations(days bigint, kept bigint, bytes bigint, most bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    rows_left bigint;
    bytes_left numeric;
    too_many bigint;
BEGIN
    DELETE FROM weir.conversation WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.conversation
        WHERE updated_at < now() - make_interval(days => days::int) LIMIT most
    ));
    GET DIAGNOSTICS gone = ROW_COUNT;
    SELECT count(*), coalesce(sum(octet_length(sealed)), 0) INTO rows_left, bytes_left
    FROM weir.conversation;
    -- Where they are too long together, as many as are too long if all are of one length.
    too_many := greatest(rows_left - kept, 0);
    IF bytes_left > bytes THEN
        too_many := greatest(too_many, ceil(rows_left * (bytes_left - bytes) / bytes_left)::bigint);
    END IF;
    too_many := least(too_many, greatest(most - gone, 0));
    DELETE FROM weir.conversation WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.conversation ORDER BY updated_at LIMIT too_many
    ));
    RETURN gone + too_many;
END $$;
