//! What `weir report` answers, from the ledger.
