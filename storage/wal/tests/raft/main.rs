//! The log and the state machine as openraft uses them.

mod suite; // openraft's own suite for log stores
