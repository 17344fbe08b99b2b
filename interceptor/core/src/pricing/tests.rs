//! Prices of the list, on both sides of every edge.

use super::*;

#[test]
fn the_built_in_table_is_valid() {
    assert_eq!(PriceTable::builtin().version(), "2026-11-22");
}
