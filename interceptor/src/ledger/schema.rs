//! The tables of the ledger in SQLite, and how they came to be.

use rusqlite_migration::{M, Migrations};

/// What makes a database of any version, or none, one of this version.
pub(super) fn migrations() -> Migrations<'static> {
    Migrations::new(STEPS.iter().map(|step| M::up(step)).collect())
}

/// `PRAGMA user_version` of a database that all steps were taken on.
pub(super) const VERSION: i64 = 6;

/// In order; those that were ever released are never changed, only added to.
const STEPS: [&str; 6] = [
    "
    -- One row per exchange, appended in the order of commits: `seq` is what other processes read
    -- on from. Amounts are nano-dollars, times milliseconds since the Unix epoch.
    CREATE TABLE exchange (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        instance TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        pid INTEGER, program TEXT, uid INTEGER, user TEXT, cgroup TEXT, container TEXT,
        key_hash TEXT, key_tail TEXT, key_kind TEXT,
        destination TEXT NOT NULL, host TEXT NOT NULL,
        provider TEXT NOT NULL, api TEXT NOT NULL, method TEXT NOT NULL, path_class TEXT NOT NULL,
        session TEXT, model_requested TEXT, model_answered TEXT,
        status INTEGER, outcome TEXT NOT NULL, refused_by TEXT, stream INTEGER NOT NULL,
        input INTEGER, cache_read INTEGER, cache_write INTEGER, cache_write_long INTEGER,
        output INTEGER, reasoning INTEGER, web_searches INTEGER,
        cost_state TEXT NOT NULL, cost_nanos INTEGER, price_version TEXT,
        cost_without_cache_nanos INTEGER, cost_perfect_cache_nanos INTEGER,
        cache_outcome TEXT, edits TEXT NOT NULL, reasons TEXT NOT NULL,
        request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL,
        added_us INTEGER NOT NULL, upstream_first_byte_us INTEGER, total_us INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX exchange_started ON exchange (started_ms);

    -- What is in flight: the record as it stands if its process dies, and the amount reserved.
    CREATE TABLE admission (
        id TEXT PRIMARY KEY,
        instance TEXT NOT NULL,
        reserved_nanos INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Up to where each journal is committed, in the same transaction as what it holds: so that
    -- nothing is counted twice.
    CREATE TABLE journal (
        instance TEXT PRIMARY KEY,
        segment INTEGER NOT NULL,
        end INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- What was not inspected, per minute.
    CREATE TABLE bypass (
        minute_ms INTEGER NOT NULL,
        program TEXT NOT NULL, host TEXT NOT NULL, reason TEXT NOT NULL,
        destination TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (minute_ms, program, host, reason, destination)
    ) STRICT, WITHOUT ROWID;
    ",
    "
    -- Where in a cluster a call came from, what its prompt cost, and why the prompt cache did not do more for it.
    ALTER TABLE exchange ADD COLUMN pod TEXT;
    ALTER TABLE exchange ADD COLUMN namespace TEXT;
    ALTER TABLE exchange ADD COLUMN service_account TEXT;
    ALTER TABLE exchange ADD COLUMN team TEXT;
    ALTER TABLE exchange ADD COLUMN cost_input_nanos INTEGER;
    ALTER TABLE exchange ADD COLUMN cache_reason TEXT;
    ALTER TABLE exchange ADD COLUMN cache_where TEXT;
    ALTER TABLE exchange ADD COLUMN cache_rule TEXT;
    ALTER TABLE exchange ADD COLUMN missed_nanos INTEGER;
    ALTER TABLE exchange ADD COLUMN rewrite_saving_nanos INTEGER;
    ",
    "
    -- Tokens as caps count them. Of older rows, those that were told.
    ALTER TABLE exchange ADD COLUMN counted_tokens INTEGER NOT NULL DEFAULT 0;
    UPDATE exchange SET counted_tokens = coalesce(input, 0) + coalesce(cache_read, 0)
        + coalesce(cache_write, 0) + coalesce(cache_write_long, 0) + coalesce(output, 0);

    -- What people changed of caps: who, when, why. Rows are added, and never altered.
    CREATE TABLE cap_change (
        seq INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        cap TEXT NOT NULL,
        scope TEXT,
        kind TEXT NOT NULL,
        nanos INTEGER NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL,
        until_ms INTEGER,
        author TEXT NOT NULL,
        reason TEXT NOT NULL
    ) STRICT;
    ",
    "
    -- What a call would have cost that a plan paid for; and, where there is more of the usage than
    -- has columns, all of it, as JSON.
    ALTER TABLE exchange ADD COLUMN notional_nanos INTEGER;
    ALTER TABLE exchange ADD COLUMN usage_details TEXT;
    ",
    "
    -- The last exchange that was recorded before: what a reset forgets is up to there.
    ALTER TABLE cap_change ADD COLUMN exchange_seq INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX cap_reset ON cap_change (exchange_seq, seq) WHERE kind = 'reset';
    ",
    "
    -- What a call costs by list, where something else is charged.
    ALTER TABLE exchange ADD COLUMN cost_by_list_nanos INTEGER;
    ",
];
