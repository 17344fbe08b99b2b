//! The data path's handle: placeholder.
