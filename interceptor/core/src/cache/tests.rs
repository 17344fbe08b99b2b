//! Outcomes and counterfactuals by example.
