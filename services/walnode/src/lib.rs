//! Serves Head and raft over internal gRPC.
