use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

fn all() -> [Compression; 5] {
    [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd(ZstdLevel::DEFAULT),
    ]
}

fn encoded(compression: Compression, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new().encode(compression, plain, &mut out).unwrap();
    out
}

fn decoded(codec: Codec, input: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    let result = Decoder::new().decode(codec, input, limit, &mut out);
    assert!(
        out.capacity() <= limit + 4096,
        "{codec} holds {} bytes, the limit is {limit}",
        out.capacity()
    );
    result.map(|()| out)
}

#[test]
fn every_codec_gives_back_what_it_took() {
    let long: Vec<u8> = (0..700_000u32)
        .flat_map(|n| (n / 7).to_le_bytes())
        .collect();
    for plain in [&b""[..], b"a", &long[..300_000], &long[..LIMIT]] {
        for compression in all() {
            let packed = encoded(compression, plain);
            assert_eq!(
                decoded(compression.codec(), &packed, LIMIT).as_deref(),
                Ok(plain),
                "{compression:?}, {} bytes",
                plain.len()
            );
        }
    }
}

#[test]
fn what_decoding_will_hold_is_known_before_it_begins() {
    let noise: Vec<u8> = (0..300_000u32)
        .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    for plain in [&b"a"[..], &[0; 700_000], &noise, &[7; 2 << 20]] {
        for compression in all() {
            let packed = encoded(compression, plain);
            let most = decoded_bytes_max(compression.codec(), &packed, LIMIT);
            let mut out = Vec::new();
            let _ = Decoder::new().decode(compression.codec(), &packed, LIMIT, &mut out);
            let held = out.capacity();
            assert!(held <= most + 4096, "{compression:?}: {held}, {most} said");
            assert!(most <= LIMIT);
        }
    }
    // What says how large it is is not taken for more.
    let packed = encoded(Compression::Zstd(ZstdLevel::DEFAULT), &noise);
    assert_eq!(decoded_bytes_max(Codec::Zstd, &packed, LIMIT), noise.len());
    assert_eq!(decoded_bytes_max(Codec::Zstd, b"junk", LIMIT), 0);
}

#[test]
fn a_bomb_stops_at_the_cap() {
    let plain = vec![0; 16 << 20];
    for compression in all() {
        let packed = encoded(compression, &plain);
        let result = decoded(compression.codec(), &packed, LIMIT);
        let stopped =
            matches!(result, Err(Fault::TooLarge { at_least, limit: LIMIT }) if at_least > LIMIT);
        assert!(stopped, "{compression:?}: {result:?}");
    }
}

#[test]
fn a_frame_one_byte_over_the_cap_is_refused_and_one_at_the_cap_is_not() {
    let plain = vec![7; LIMIT + 1];
    for compression in all() {
        let codec = compression.codec();
        let over = decoded(codec, &encoded(compression, &plain), LIMIT);
        assert!(matches!(over, Err(Fault::TooLarge { .. })), "{codec}");
        let full = decoded(codec, &encoded(compression, &plain[1..]), LIMIT);
        assert_eq!(full.map(|out| out.len()), Ok(LIMIT), "{codec}");
    }
}

#[test]
fn a_streamed_zstd_bomb_without_a_declared_size_stops_at_the_cap() {
    let packed = zstd_stream(&vec![0; 16 << 20]);
    let result = decoded(Codec::Zstd, &packed, LIMIT);
    assert!(matches!(result, Err(Fault::TooLarge { .. })), "{result:?}");
    let small = zstd_stream(b"streamed");
    assert_eq!(
        decoded(Codec::Zstd, &small, LIMIT).as_deref(),
        Ok(&b"streamed"[..])
    );
}

/// A frame as a streaming producer writes it: no content size in its header.
fn zstd_stream(plain: &[u8]) -> Vec<u8> {
    ::zstd::stream::encode_all(plain, 3).unwrap()
}

#[test]
fn a_cut_frame_is_never_taken_for_a_whole_one() {
    let plain: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
    for compression in all().into_iter().skip(1) {
        let packed = encoded(compression, &plain);
        for cut in 0..packed.len() {
            let result = decoded(compression.codec(), &packed[..cut], LIMIT);
            // Xerial's chunks carry no end: a cut between two of them shows in the record count.
            let silent = result.as_deref().is_ok_and(|out| out.len() == plain.len());
            assert!(!silent, "{compression:?} cut at {cut}");
            if compression != Compression::Snappy {
                assert!(result.is_err(), "{compression:?} cut at {cut}");
            }
        }
    }
}

#[test]
fn a_second_frame_or_junk_after_the_first_is_refused() {
    for compression in [
        Compression::Gzip,
        Compression::Lz4,
        Compression::Zstd(ZstdLevel::DEFAULT),
    ] {
        let one = encoded(compression, b"one");
        for tail in [&one[..], b"\0"] {
            let both = [&one[..], tail].concat();
            assert_eq!(
                decoded(compression.codec(), &both, LIMIT),
                Err(Fault::Trailing {
                    at: one.len(),
                    bytes: tail.len()
                }),
                "{compression:?}"
            );
        }
    }
}

#[test]
fn a_raw_snappy_block_is_read_too() {
    let raw = snap::raw::Encoder::new()
        .compress_vec(b"bare bare bare")
        .unwrap();
    assert_eq!(
        decoded(Codec::Snappy, &raw, LIMIT).as_deref(),
        Ok(&b"bare bare bare"[..])
    );
}

#[test]
fn a_snappy_block_that_declares_more_than_it_can_hold_costs_no_memory() {
    // 64 MiB declared by four bytes of varint and one of data.
    let lie = [0x80, 0x80, 0x80, 0x20, 0x00];
    let mut out = Vec::new();
    let result = Decoder::new().decode(Codec::Snappy, &lie, 64 << 20, &mut out);
    assert_eq!(result, Err(Fault::Size { declared: 64 << 20 }));
    assert_eq!(out.capacity(), 0);
}

#[test]
fn a_zstd_frame_that_declares_more_than_its_blocks_hold_costs_no_memory() {
    // Window 8 MiB, content size 60 MiB, one raw block of one byte.
    let mut lie = vec![0x28, 0xB5, 0x2F, 0xFD, 0b1000_0000, (23 - 10) << 3];
    lie.extend_from_slice(&(60u32 << 20).to_le_bytes());
    lie.extend_from_slice(&[0b0000_1001, 0, 0, b'x']);
    let mut out = Vec::new();
    let result = Decoder::new().decode(Codec::Zstd, &lie, 64 << 20, &mut out);
    assert_eq!(result, Err(Fault::Corrupt));
    assert!(out.capacity() < 4096);
}

#[test]
fn a_zstd_window_above_the_limit_is_refused_with_both_numbers() {
    let frame = [0x28, 0xB5, 0x2F, 0xFD, 0, (24 - 10) << 3, 1, 0, 0];
    assert_eq!(
        decoded(Codec::Zstd, &frame, LIMIT),
        Err(Fault::Window {
            bytes: 1 << 24,
            limit: 1 << 23
        })
    );
}

#[test]
fn dictionaries_and_skippable_frames_are_refused() {
    let mut frame = encoded(Compression::Zstd(ZstdLevel::DEFAULT), b"plain");
    frame[4] |= 1;
    assert_eq!(decoded(Codec::Zstd, &frame, LIMIT), Err(Fault::Dictionary));
    let skippable = [0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, b'x'];
    for codec in [Codec::Zstd, Codec::Lz4] {
        assert_eq!(decoded(codec, &skippable, LIMIT), Err(Fault::Magic));
    }
    let mut frame = encoded(Compression::Lz4, b"plain");
    frame[4] |= 1;
    assert_eq!(decoded(Codec::Lz4, &frame, LIMIT), Err(Fault::Dictionary));
}

#[test]
fn lz4_blocks_that_refer_to_earlier_ones_and_carry_checksums_are_read() {
    use std::io::Write;
    // Noise of 50,000 bytes, again and again: every match reaches far back into another block.
    let noise = (0..50_000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[2]);
    let plain: Vec<u8> = noise.cycle().take(400_000).collect();
    let info = lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Linked)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(plain.len() as u64));
    let mut frame = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    frame.write_all(&plain).unwrap();
    let mut packed = frame.finish().unwrap();
    assert!(packed.len() < plain.len() / 2, "no block refers to another");
    assert_eq!(
        decoded(Codec::Lz4, &packed, LIMIT).as_deref(),
        Ok(&plain[..])
    );
    let last = packed.len() - 1;
    packed[last] ^= 1;
    assert_eq!(decoded(Codec::Lz4, &packed, LIMIT), Err(Fault::Checksum));
}

#[test]
fn the_highest_level_stays_within_the_window_that_is_admitted() {
    let plain: Vec<u8> = (0..9u8).flat_map(|n| vec![n; 1 << 20]).collect();
    for level in [1, ZstdLevel::MAX.get()] {
        let level = ZstdLevel::new(level).unwrap();
        let packed = encoded(Compression::Zstd(level), &plain);
        let back = decoded(Codec::Zstd, &packed, 16 << 20);
        assert!(back.is_ok_and(|back| back == plain), "level {level:?}");
    }
    assert_eq!(ZstdLevel::new(0), None);
    assert_eq!(ZstdLevel::new(20), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass_the_cap(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        which in 0..Codec::ALL.len(),
        magic in any::<bool>(),
    ) {
        let codec = Codec::ALL[which];
        if magic {
            let start: &[u8] = match codec {
                Codec::None => b"",
                Codec::Gzip => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff],
                Codec::Snappy => b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
                Codec::Lz4 => &[0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82],
                Codec::Zstd => &[0x28, 0xB5, 0x2F, 0xFD],
            };
            bytes.splice(0..0, start.iter().copied());
        }
        if let Ok(out) = decoded(codec, &bytes, 4096) {
            prop_assert!(out.len() <= 4096);
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(
        plain in proptest::collection::vec(0u8..4, 0..3000),
        which in 0..5usize,
        at in any::<proptest::sample::Index>(),
        bit in 0..8u32,
    ) {
        let compression = all()[which];
        let mut packed = encoded(compression, &plain);
        if !packed.is_empty() {
            let at = at.index(packed.len());
            packed[at] ^= 1u8 << bit;
            let _ = decoded(compression.codec(), &packed, 8192);
        }
    }
}
