//! Edits, from the outside.
