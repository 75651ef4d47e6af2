//! Plain records into batches and back, for clients without a codec of Kafka's format.

use bytes::Bytes;
use esker_log::ReadBatch;
use esker_proto::v1;
use esker_record::codec::Compression;
use esker_record::{Batch, Builder, NewRecord, RecordHeader, Scratch};
use esker_types::limits::BATCH_BYTES_MAX;
use esker_types::{ProducerStamp, Timestamp};

use crate::fault;

/// One batch of `records`, not compressed: blocks compress better than batches do. `now` stands in
/// where a record has no time.
pub(crate) fn batch(
    records: &[v1::Record],
    producer: Option<v1::Producer>,
    now: Timestamp,
) -> Result<Bytes, v1::Error> {
    let stamp = producer.map(ProducerStamp::try_from).transpose()?;
    let mut builder = Builder::new(Compression::None, BATCH_BYTES_MAX);
    for record in records {
        let timestamp = match record.timestamp_ms {
            Some(ms) => Timestamp(ms),
            None if stamp.is_some() => {
                return Err(fault::invalid(
                    "nothing is stored: records of a producer need their `timestamp_ms`, or a retry \
                     would not be the same batch",
                ));
            }
            None => now,
        };
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|header| RecordHeader {
                key: header.key.as_bytes(),
                value: header.value.as_deref(),
            })
            .collect();
        let record = NewRecord {
            timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder
            .push(&record)
            .map_err(|error| fault::of_records(&error))?;
    }
    let batch = builder.finish(stamp);
    Ok(batch
        .map_err(|error| fault::of_records(&error))?
        .into_bytes())
}

/// The records of a batch, each with its offset. Keys and values share the decoded bytes.
pub(crate) fn records(
    batch: &ReadBatch,
    scratch: &mut Scratch,
) -> Result<Vec<v1::StoredRecord>, esker_record::Error> {
    let opened = Batch::open(batch.bytes.clone())?;
    let decoded = scratch.decode_owned(&opened)?;
    let shared = |bytes: Option<&[u8]>| bytes.map(|bytes| decoded.slice_ref(bytes));
    let base = batch.range.start().get();
    let records = esker_record::Records::new(opened.header(), &decoded);
    let records = (base..).zip(records).map(|(offset, record)| {
        let record = record?;
        let headers = record.headers.map(|header| v1::Header {
            key: String::from_utf8_lossy(header.key).into_owned(),
            value: shared(header.value),
        });
        Ok(v1::StoredRecord {
            offset,
            record: Some(v1::Record {
                key: shared(record.key),
                value: shared(record.value),
                headers: headers.collect(),
                timestamp_ms: Some(record.timestamp.0),
            }),
        })
    });
    records.collect()
}
