//! The engine an agent runs: append, flush, read, follow, trim, collect.
