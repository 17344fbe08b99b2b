//! Caps hold, whatever happens in what order.
