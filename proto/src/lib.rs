//! The wire, and only the wire.
//!
//! Here is what the services and the SDK must agree on: messages and stubs, generated from
//! `esker/v1/*.proto` and `esker/internal/v1/*.proto`; what they mean in [`esker_types`]; how an error
//! travels; how a connection is set. Nothing here decides anything.
//!
//! ```text
//!   esker/v1/*.proto ─► v1 ◄─► convert ◄─► esker_types
//!                        │
//!    appends of nodes ─► streams: large batches as they lie
//!                        │
//!       Error ◄─► status ◄─► tonic::Status, grpc-status-details-bin
//!                        │
//!       tuning, transport ◄─ tls ─► env::Network
//! ```

/// `esker.v1`, the public API, as generated: see the comments in `esker/v1/*.proto`.
#[expect(
    clippy::all,
    clippy::allow_attributes,
    clippy::clone_on_ref_ptr,
    missing_docs,
    reason = "generated"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/esker.v1.rs"));
}

/// `esker.internal.v1`, between the nodes of a cluster, as generated: see the comments in
/// `esker/internal/v1/*.proto`.
#[expect(
    clippy::allow_attributes,
    clippy::clone_on_ref_ptr,
    missing_docs,
    reason = "generated"
)]
pub mod internal {
    include!(concat!(env!("OUT_DIR"), "/esker.internal.v1.rs"));
}

mod convert; // ids, offsets, durability

mod status; // an error, alone and as a gRPC status

mod accepting; // a listener that goes on

mod newest; // what is done for who came last

pub mod codec; // messages, in as much memory as they take

mod whole; // bodies, cut where messages begin

pub mod streams; // messages that carry batches, large ones uncopied

pub mod tls; // connections that prove who is there

pub mod transport; // tonic over env's network

pub mod tuning; // what both sides of a connection set

pub use accepting::Accepting;
pub use convert::{FieldError, encoded_bytes, offset};
pub use newest::{Newest, Spared};
pub use status::{DETAIL_TYPE, STATUS_MESSAGE_BYTES_MAX};
pub use whole::Layer;

/// The descriptors of all files, as an encoded `FileDescriptorSet`: what reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
