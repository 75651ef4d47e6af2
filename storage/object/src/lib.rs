//! The few verbs used on a bucket.
