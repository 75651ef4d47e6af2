//! Record batches: build, check, iterate, patch. Sans-I/O.
