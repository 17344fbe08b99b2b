//! The parser of event streams, from the outside.
