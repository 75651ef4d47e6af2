//! Segments: immutable objects that hold record batches of many partitions, with an index.
//!
//! ```text
//!  0      16                                                                    length − 48  length
//!  ┌──────┬───────┬───────┬────┬────────┬────────┬────┬─────────┬────┬──────────┬─────────┐
//!  │header│block 0│block 1│ …  │index   │index   │ …  │directory│ …  │ footer   │ trailer │
//!  │magic │       │       │    │page    │page    │    │page     │    │          │ 48 bytes│
//!  └──────┴───────┴───────┴────┴────────┴────────┴────┴─────────┴────┴──────────┴─────────┘
//!             ▲        ▲          │                       │               │          │
//!             │        └─ entry: block, position, bytes ──┘               │          │
//!             │                   ▲── partition: range, index pages, ◄────┤          │
//!             │                       producers, epochs                   │          │
//!             └──────── block table, directory pages, identity ◄──────────┴──────────┘
//! ```
//!
//! ```text
//!   write:  Writer ─► RawBlock ─► seal (any thread) ─► Assembler ─► chunks, Summary
//!   read:   Opening ─► Segment ─► DirectoryPage ─► IndexPage ─► block ─► batch
//!   verify: Verifier, over the whole object
//! ```
//!
//! Promise: no I/O; every part has a checksum and is refused before it is believed; a batch comes
//! out byte for byte as it went in, its base offset and leader epoch set. Bytes are laid out in
//! `storage/FORMAT.md`. Not here: where objects lie, which segments make up a partition.

mod facts; // what a segment says of its shard, partitions and batches

mod writer; // batches in order, cut into blocks, indexed

mod block; // seal and decode the unit of read, cache and compression

mod assembler; // sealed blocks in order, then all that follows them

mod index; // batches of a partition, in pages

mod partition; // one partition: range, facts, pages of its index

mod directory; // partitions of the segment, in pages

mod footer; // identity, block table, root of the directory

mod trailer; // the first 16 bytes and the last 48

mod open; // which range to GET next, until the footer is known

mod segment; // an opened one: where every part is, and whether it is right

mod verify; // the whole object, recomputed

mod error; // what is damaged, and which offsets it touches

mod fields; // little-endian fields, bounded

pub use assembler::{Assembler, Checksum, Summary};
pub use block::{BlockNumber, BlockRef, RawBlock, SealedBlock, Sealer};
pub use directory::{DirectoryPage, DirectoryPageRef};
pub use error::{Damage, Error, Fault, Part};
pub use facts::{
    EpochStart, Extension, Mark, Origin, PartitionFacts, Placement, ProducerWindow, Tombstone,
};
pub use index::{Entry, Extensions, IndexPage, IndexPageRef};
pub use open::{Opened, Opening, Tail};
pub use partition::Partition;
pub use segment::Segment;
pub use verify::{Depth, Verified, Verifier};
pub use writer::{Index, Writer};
