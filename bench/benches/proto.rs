//! The wire: an append and a reply of a read, encoded and decoded. Decoded bytes are slices of what
//! came in; encoded ones are copied once.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use esker_bench::{BATCH_BYTES, ZSTD, batch, lines};
use esker_proto::v1::{AppendRequest, Batch, ReadReply, append_request};
use prost::Message as _;

fn append() -> AppendRequest {
    let batch = batch(&lines(BATCH_BYTES, 1), ZSTD);
    AppendRequest {
        request_id: 7,
        topic: "logs".to_owned(),
        partition: 3,
        payload: Some(append_request::Payload::Batch(batch.into_bytes())),
        ..AppendRequest::default()
    }
}

fn reply() -> ReadReply {
    let batches = (0..16).map(|seed| Batch {
        base_offset: seed * 1000,
        data: batch(&lines(BATCH_BYTES, seed), ZSTD).into_bytes(),
    });
    ReadReply {
        batches: batches.collect(),
        ..ReadReply::default()
    }
}

fn proto(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("proto");
    let (append, reply) = (append(), reply());
    group.throughput(Throughput::Bytes(append.encoded_len() as u64));
    let mut buffer = BytesMut::new();
    group.bench_function("encode an append", |bench| {
        bench.iter(|| {
            buffer.clear();
            append.encode(&mut buffer).expect("it grows")
        });
    });
    let bytes = Bytes::from(append.encode_to_vec());
    group.bench_function("decode an append", |bench| {
        bench.iter(|| AppendRequest::decode(bytes.clone()).expect("we made it"));
    });
    group.throughput(Throughput::Bytes(reply.encoded_len() as u64));
    group.bench_function("encode a reply of 16 batches", |bench| {
        bench.iter(|| {
            buffer.clear();
            reply.encode(&mut buffer).expect("it grows")
        });
    });
    let bytes = Bytes::from(reply.encode_to_vec());
    group.bench_function("decode a reply of 16 batches", |bench| {
        bench.iter(|| ReadReply::decode(bytes.clone()).expect("we made it"));
    });
    group.finish();
}

criterion_group!(benches, proto);
criterion_main!(benches);
