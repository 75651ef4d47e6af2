//! Compressed records that are none, or far too many.

use std::io::Write;

use esker_proto::v1::Code;
use esker_tests::node::run;
use esker_types::limits::MIB;

use crate::batch::{case, with_records};
use crate::world::{World, batch, resident_kib};

const ZSTD: u8 = 4;
const CODECS: [u8; 4] = [1, 2, 3, 4];

/// `bytes` zeros in a frame that does not say how many they are.
fn bomb(bytes: usize, window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(window_log).expect("a window");
    let piece = vec![0; MIB];
    for _ in 0..bytes / MIB {
        encoder.write_all(&piece).expect("encoded");
    }
    encoder.finish().expect("ended")
}

/// One record of `value`'s bytes, as a batch would have it, compressed.
fn frame() -> Vec<u8> {
    let record = [14, 0, 0, 0, 1, 2, b'v', 0];
    zstd::encode_all(&record[..], 3).expect("encoded")
}

#[test]
fn a_bomb_is_refused_and_memory_stays_bounded() {
    run(async {
        let world = World::new(3101).await;
        let bomb = bomb(1024 * MIB, 20);
        assert!(bomb.len() < 256 << 10, "{} bytes", bomb.len());
        let words = ["nothing is stored", "67108864"];
        world
            .refuses(
                batch(with_records(1, ZSTD, &bomb)),
                Code::BatchTooLarge,
                &words,
            )
            .await;
        let before = resident_kib();
        for _ in 0..8 {
            let bytes = with_records(1, ZSTD, &bomb);
            world.append(batch(bytes)).await.expect_err("refused");
        }
        // Other tests of this process hold memory too: far less than one of these bombs has.
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 400 << 10, "{grown} KiB more after 8 GiB of bombs");
    });
}

#[test]
fn frames_that_a_reader_could_not_decode_are_refused() {
    run(async {
        let world = World::new(3102).await;
        world
            .append(batch(with_records(1, ZSTD, &frame())))
            .await
            .expect_err("max timestamp");
        let zstd = |frame: &[u8]| with_records(1, ZSTD, frame);
        let whole = frame();
        let cut = |left: usize| zstd(&whole[..left]);
        let wide = bomb(32 * MIB, 24);
        let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
            (
                "no magic",
                zstd(b"this is no frame at all"),
                &["zstd", "no frame"],
            ),
            ("nothing", zstd(b""), &["zstd"]),
            ("a window of 16 MiB", zstd(&wide), &["16777216", "8388608"]),
            // Dictionary id 7, content of one byte.
            (
                "a dictionary",
                zstd(&[
                    0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x07, 0x01, 0x09, 0x00, 0x00, 0x41,
                ]),
                &["dictionary"],
            ),
            ("cut in its header", cut(5), &["zstd"]),
            ("cut in its last block", cut(whole.len() - 1), &["zstd"]),
            (
                "two frames",
                zstd(&[&whole[..], &whole].concat()),
                &["follow the frame's end"],
            ),
            (
                "bytes after it",
                zstd(&[&whole[..], b"more"].concat()),
                &["follow the frame's end"],
            ),
            (
                "a skippable frame",
                zstd(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]),
                &["zstd"],
            ),
        ];
        for (what, bytes, words) in cases {
            case(what);
            world
                .refuses(batch(bytes), Code::MalformedBatch, words)
                .await;
        }
        // A frame that declares 2^62 bytes, in a single segment.
        let mut huge = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
        huge.extend_from_slice(&(1u64 << 62).to_le_bytes());
        huge.extend_from_slice(&[0x01, 0x00, 0x00]);
        let error = world.append(batch(zstd(&huge))).await.expect_err("refused");
        assert!(
            matches!(error.code(), Code::BatchTooLarge | Code::MalformedBatch),
            "{error:?}"
        );
        world.is_well().await;
    });
}

#[test]
fn garbage_is_refused_in_every_codec() {
    run(async {
        let world = World::new(3103).await;
        let garbage: Vec<u8> = (0..400u32)
            .map(|n| u8::try_from(((n * 7919) >> 3) % 256).expect("below 256"))
            .collect();
        for codec in CODECS {
            case(&format!("codec {codec}"));
            let words = ["nothing is stored", "cannot be decoded as"];
            let bytes = with_records(1, codec, &garbage);
            world
                .refuses(batch(bytes), Code::MalformedBatch, &words)
                .await;
        }
    });
}
