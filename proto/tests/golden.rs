//! The public wire does not change: what has a number keeps it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use bytes::Bytes;
use esker_proto::{FILE_DESCRIPTOR_SET, v1};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

const NUMBERS: &str = include_str!("golden/numbers.txt");

/// Every field, enum value and method of `esker.v1`, a line each. A line may be added to the file;
/// one that is changed or gone breaks a client somewhere.
#[test]
fn numbers_are_those_of_the_golden_file() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut listed = String::new();
    for file in set.file.iter().filter(|file| file.package() == "esker.v1") {
        file.enum_type.iter().for_each(|e| put_enum(&mut listed, e));
        file.message_type
            .iter()
            .for_each(|m| put_message(&mut listed, m));
        file.service
            .iter()
            .for_each(|s| put_service(&mut listed, s));
    }
    assert_eq!(listed, NUMBERS, "this is what it is now:\n{listed}");
}

fn put_enum(out: &mut String, described: &EnumDescriptorProto) {
    for value in &described.value {
        writeln!(
            out,
            "{}.{} = {}",
            described.name(),
            value.name(),
            value.number()
        )
        .unwrap();
    }
}

fn put_message(out: &mut String, message: &DescriptorProto) {
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            scalar => scalar
                .as_str_name()
                .trim_start_matches("TYPE_")
                .to_lowercase(),
        };
        let label = match field.label() {
            Label::Repeated => "repeated ",
            _ if field.proto3_optional() => "optional ",
            _ if field.oneof_index.is_some() => "oneof ",
            _ => "",
        };
        let (name, number) = (field.name(), field.number());
        writeln!(out, "{}.{name} = {number} {label}{kind}", message.name()).unwrap();
    }
}

fn put_service(out: &mut String, service: &ServiceDescriptorProto) {
    for method in &service.method {
        let stream = |streams| if streams { "stream " } else { "" };
        writeln!(
            out,
            "{}.{}({}{}) {}{}",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type(),
            stream(method.server_streaming()),
            method.output_type(),
        )
        .unwrap();
    }
}

/// One message byte by byte, so that it is not our own encoder that agrees with itself.
#[test]
fn an_append_is_encoded_as_protocol_buffers_say() {
    let request = v1::AppendRequest {
        request_id: 300,
        topic: "t".to_owned(),
        partition: 2,
        payload: Some(v1::append_request::Payload::Batch(Bytes::from_static(
            b"xy",
        ))),
        producer: None,
        expected_end: Some(0),
        fencing_token: None,
    };
    let bytes = [
        0x08, 0xac, 0x02, // 1: 300
        0x12, 0x01, b't', // 2: "t"
        0x18, 0x02, // 3: 2
        0x22, 0x02, b'x', b'y', // 4: the batch
        0x38, 0x00, // 7: 0, there although it is the default
    ];
    assert_eq!(request.encode_to_vec(), bytes);
    assert_eq!(v1::AppendRequest::decode(&bytes[..]).unwrap(), request);
}

/// A batch is a slice of the message it came in, not a copy.
#[test]
fn a_batch_shares_the_bytes_of_its_message() {
    let reply = v1::ReadReply {
        batches: vec![v1::Batch {
            base_offset: 7,
            data: Bytes::from(vec![9; 1000]),
        }],
        ..v1::ReadReply::default()
    };
    let message = Bytes::from(reply.encode_to_vec());
    let inside = message.as_ptr_range();
    let decoded = v1::ReadReply::decode(message).unwrap();
    assert!(inside.contains(&decoded.batches[0].data.as_ptr()));
}
