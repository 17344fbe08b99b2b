//! What programs are given, on made-up machines of every layout.
