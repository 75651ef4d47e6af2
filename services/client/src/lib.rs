//! The Rust SDK: appends records, reads them back, looks after topics. Everything goes over gRPC
//! to an agent, any agent.
//!
//! ```text
//!   Client ─┬─ Producer ─ the append stream of all partitions ─┐
//!           ├─ Admin ──── calls ───────────────────────────────┼─► agent
//!           └─ Reader ─── a connection of its own each ────────┘
//! ```
//!
//! ```no_run
//! use std::collections::BTreeMap;
//!
//! use esker_client::{Client, Options, ProducerOptions, ReadOptions, Record};
//! use esker_env::Env;
//!
//! # async fn example() -> Result<(), esker_client::Error> {
//! let env = Env::real();
//! let client = Client::connect("http://127.0.0.1:7070", Options::default(), &env).await?;
//! client.admin().create_topic("clicks", 4, &BTreeMap::new()).await?;
//!
//! let producer = client.producer("clicks", ProducerOptions::default()).await?;
//! let delivery = producer.send(Record::keyed("user 7", "a click")).await?;
//! let acked = delivery.await?; // synced on a quorum of disks
//!
//! let mut reader = client.read("clicks", acked.partition, ReadOptions::default()).await?;
//! while let Some(batch) = reader.next().await? {
//!     for record in batch.records() {
//!         assert!(record.value.is_some());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every [`Error`] says whether data is durable. What the service may have done and did not tell
//! is `Unknown`, never guessed.

mod client; // a connection, and calls that are tried again

mod greeting; // what answers there

mod producer; // appends, in batches, in order, each once

mod reader; // batches of a partition, one after the other, over any break

mod admin; // topics and the cluster

pub mod direct; // history out of a bucket, with no cluster at all

mod error; // what a call came to

mod patience; // how long to try, how long to rest

mod setback; // why nothing gets on at present

pub use admin::{Admin, Verification};
pub use client::{Client, Options};
pub use error::{Code, Detail, Error};
pub use esker_proto::tls::{Connecting, Own};
pub use esker_proto::v1;
pub use esker_record::{Compression, ZstdLevel};
pub use esker_types::{Durability, Offset, OffsetRange, Timestamp};
pub use patience::{REST_FIRST, REST_MAX};
pub use producer::{
    Acked, AckedAll, Delivery, DeliveryOfAll, Header, Producer, ProducerOptions, Record,
};
pub use reader::{Batch, From, ReadOptions, Reader, Until};
