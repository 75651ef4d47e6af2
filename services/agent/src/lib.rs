//! Serves the public gRPC API.
