//! What the CA and its leaves hold, and how the CA behaves on a disk.
