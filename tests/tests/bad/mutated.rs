//! Conversations with bytes changed, over the system's network: the server lives, holds no more
//! memory, and answers who comes next.
//!
//! How many: `ESKER_MUTATED_FRAMES`, 1,000 unless set; the seed: `ESKER_SEED`.

use std::time::Duration;

use esker_env::Entropy;
use esker_env::sim::SeededEntropy;
use esker_proto::v1::{self, append_request::Payload};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::batch::good;
use crate::wire::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, WINDOW_UPDATE, block, frame, framed,
    opening,
};
use crate::world::{TOPIC, World, plain, request, resident_kib, run_live};

/// Resident KiB that the whole run may add: a few replies and buffers, and no leak per frame.
const GROWTH_KIB_MAX: u64 = 200 << 10;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Frames of sound conversations, the opening aside.
fn sound() -> Vec<Vec<u8>> {
    let read = v1::ReadRequest {
        topic: TOPIC.into(),
        ..v1::ReadRequest::default()
    };
    let create = v1::CreateTopicRequest {
        name: "sand".into(),
        partitions: 3,
        ..Default::default()
    };
    let calls = [
        (
            "Log/Append",
            framed(&request(Payload::Batch(good().into())).encode_to_vec()),
        ),
        (
            "Log/Append",
            framed(&plain(&["some", "records"]).encode_to_vec()),
        ),
        ("Log/Read", framed(&read.encode_to_vec())),
        ("Admin/CreateTopic", framed(&create.encode_to_vec())),
    ];
    let mut conversations = Vec::new();
    for (method, message) in calls {
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(method));
        bytes.extend(frame(DATA, END_STREAM, 1, &message));
        conversations.push(bytes);
    }
    conversations.push(frame(PING, 0, 0, &[1; 8]));
    conversations.push(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
    conversations.push(frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]));
    conversations
}

/// Flips, cuts, doubles, or overwrites a few places.
fn mutate(bytes: &mut Vec<u8>, entropy: &SeededEntropy) {
    let below = |limit: usize| usize::try_from(entropy.next_u64()).unwrap_or(0) % limit.max(1);
    for _ in 0..=below(4) {
        let at = below(bytes.len());
        match below(6) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = entropy.next_u64().to_le_bytes()[0],
            2 => bytes.truncate(at.max(1)),
            3 => {
                let piece = bytes[at..].to_vec();
                bytes.extend(piece);
            }
            4 => {
                let end = (at + 4).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            _ => bytes.insert(at, entropy.next_u64().to_le_bytes()[0]),
        }
    }
}

#[test]
fn mutated_frames_neither_end_the_server_nor_fill_its_memory() {
    let count = number("ESKER_MUTATED_FRAMES", 1000);
    let entropy = SeededEntropy::new(number("ESKER_SEED", 1));
    run_live(async {
        let world = World::on_tcp(3801).await;
        let sound = sound();
        let mut before = resident_kib();
        for done in 0..count {
            // What is allocated once is allocated by now.
            if done == count / 10 {
                before = resident_kib();
            }
            let mut bytes = opening();
            let which = usize::try_from(entropy.next_u64() % sound.len() as u64).expect("small");
            let mut conversation = sound[which].clone();
            mutate(&mut conversation, &entropy);
            bytes.extend(conversation);
            let mut connection = world.connection().await;
            // Either side may close first.
            let _ = connection.write_all(&bytes).await;
            let mut answer = [0; 16 << 10];
            let patience = Duration::from_millis(20);
            let _ = tokio::time::timeout(patience, connection.read(&mut answer)).await;
            if done % 100 == 0 {
                world
                    .append(plain(&["between"]))
                    .await
                    .expect("the server lives");
            }
        }
        let grown = resident_kib().saturating_sub(before);
        assert!(
            grown < GROWTH_KIB_MAX,
            "{grown} KiB more after {count} frames"
        );
        world.is_well().await;
    });
}
