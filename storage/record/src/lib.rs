//! Record batches: what travels through the whole system, byte for byte as its producer made it.
//!
//! Kafka's RecordBatch v2, big-endian. The producer's CRC-32C covers byte 21 to the end, so base
//! offset and leader epoch may be patched and nothing else.
//!
//! ```text
//!  0         8       12      16 17    21     23      27       35       43         57      61
//!  ┌─────────┬───────┬───────┬──┬─────┬──────┬───────┬────────┬────────┬──────────┬───────┬─────────
//!  │ base    │length │leader │2 │crc  │attri-│last   │base    │max     │producer  │record │ records,
//!  │ offset  │after  │epoch  │  │     │butes │offset │time-   │time-   │id epoch  │count  │ plain or
//!  │         │byte 12│       │  │     │      │delta  │stamp   │stamp   │sequence  │       │ one frame
//!  └─────────┴───────┴───────┴──┴─────┴──────┴───────┴────────┴────────┴──────────┴───────┴─────────
//!   patchable         patchable        └──────────────── covered by the CRC ────────────────────────►
//! ```
//!
//! ```text
//!   producer's records ─► Builder ─► Batch ─► admit (an agent, once) ─► patch_front (into a block)
//!                                      └────► Scratch::decode ─► Records (a reader)
//! ```
//!
//! Promise: no I/O, no panic on any input, every allocation bounded by
//! [`esker_types::limits`]. Not here: offsets (the shard gives them), blocks (the segment).

mod header; // the 61 bytes before the records

mod batch; // bytes whose frame and checksum hold

mod builder; // plain records in, batch out

mod admit; // what an agent checks of a producer's batch, once

mod hash; // the content hash and its canonical form

mod patch; // base offset and leader epoch, outside the checksum

mod scratch; // memory for decoding, reused

mod records; // decoded records, borrowed

pub mod codec; // none, gzip, snappy, lz4, zstd: bounded, both ways

mod cursor; // varints and lengths over a slice

mod error; // what is wrong, where, and by which limit

pub use admit::{Checked, Depth, Rules, admit};
pub use batch::Batch;
pub use builder::{Builder, NewRecord};
pub use codec::{Codec, Compression, ZstdLevel};
pub use error::{Error, Fault, FieldName, Refusal};
pub use hash::content_hash;
pub use header::{Attributes, HEADER_BYTES, Header, TimestampKind};
pub use patch::{patch, patch_front};
pub use records::{Headers, Place, Record, RecordHeader, Records};
pub use scratch::{Plain, Scratch, decoded_bytes_most};
