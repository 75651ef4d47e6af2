//! What no single crate can show. The checks themselves are integration tests in `tests/tests`.
