//! Bytes as the message of an append, as a service takes it in: what gets through both doors, a
//! batch or plain records, is a batch that can be read to its end.
#![no_main]

use bytes::Bytes;
use esker_proto::v1::{self, append_request::Payload};
use esker_record::codec::Compression;
use esker_record::{Builder, Depth, NewRecord, RecordHeader, Rules, Scratch, admit};
use esker_types::limits::BATCH_BYTES_DEFAULT;
use esker_types::{ProducerStamp, Timestamp, TopicName};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let _ = v1::ReadRequest::decode(data).map(|request| request.mark.map(|mark| mark.place()));
    let _ = v1::CreateTopicRequest::decode(data).map(|request| TopicName::new(&request.name));
    let Ok(request) = v1::AppendRequest::decode(data) else {
        return;
    };
    let _ = TopicName::new(&request.topic);
    let _ = request
        .expected_end
        .map(|end| esker_proto::offset("expected_end", end));
    let Ok(stamp) = request.producer.map(ProducerStamp::try_from).transpose() else {
        return;
    };
    let batch = match &request.payload {
        Some(Payload::Batch(batch)) => batch.clone(),
        Some(Payload::Records(records)) => match built(&records.records, stamp) {
            Some(batch) => batch,
            None => return,
        },
        None => return,
    };
    let rules = Rules {
        batch_bytes_max: BATCH_BYTES_DEFAULT,
        depth: Depth::Deep,
    };
    let mut scratch = Scratch::new(1 << 20);
    let checked = match admit(batch, &rules, &mut scratch) {
        Ok(checked) => checked,
        // What we have built ourselves is in order, and small.
        Err(error) => match request.payload {
            Some(Payload::Records(_)) => panic!("{error}"),
            _ => return,
        },
    };
    let plain = scratch.decode(&checked.batch).expect("it was admitted");
    let records = plain.records().filter(Result::is_ok).count();
    assert_eq!(records, checked.batch.header().records as usize);
});

fn built(records: &[v1::Record], stamp: Option<ProducerStamp>) -> Option<Bytes> {
    let mut builder = Builder::new(Compression::None, BATCH_BYTES_DEFAULT);
    for record in records {
        let headers = record.headers.iter().map(|header| RecordHeader {
            key: header.key.as_bytes(),
            value: header.value.as_deref(),
        });
        let new = NewRecord {
            timestamp: Timestamp(record.timestamp_ms.unwrap_or(7)),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers.collect::<Vec<_>>(),
        };
        builder.push(&new).ok()?;
    }
    Some(builder.finish(stamp).ok()?.into_bytes())
}
