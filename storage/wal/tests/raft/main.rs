//! The log and the state machine as openraft uses them.

mod full; // many shards, one disk, no room
mod replica; // a single voter: append, die, come back
mod suite; // openraft's own suite for log stores
