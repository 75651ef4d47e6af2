//! The replicated state machine of one shard: command in, outcome out. Pure.
