//! The whole table of the decision.
