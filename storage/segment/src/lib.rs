//! The immutable segment format: write, read, verify. Sans-I/O.
