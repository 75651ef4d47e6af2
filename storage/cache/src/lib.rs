//! The hybrid block cache.
