-- What conversations were given that are edited, sealed by the nodes under a secret that is not here:
-- a conversation by the keyed hash of its beginning, a set of rules by its name. `version` goes up with
-- each write, so that of two nodes that write at once the second one looks again.
CREATE TABLE weir.conversation (
    key bytea PRIMARY KEY,
    sealed bytea NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX conversation_updated ON weir.conversation (updated_at);

-- Drops conversations in which nothing was told for `days`, and the oldest of more than `kept`, at most
-- `most` rows at once. Returns how many those were.
CREATE FUNCTION weir.purge_conversations(days bigint, kept bigint, most bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    too_many bigint;
BEGIN
    DELETE FROM weir.conversation WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.conversation
        WHERE updated_at < now() - make_interval(days => days::int) LIMIT most
    ));
    GET DIAGNOSTICS gone = ROW_COUNT;
    SELECT least(greatest(count(*) - kept, 0), greatest(most - gone, 0)) INTO too_many
    FROM weir.conversation;
    DELETE FROM weir.conversation WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM weir.conversation ORDER BY updated_at LIMIT too_many
    ));
    RETURN gone + too_many;
END $$;
