//! The raft log on disk, group commit, and its openraft glue.
