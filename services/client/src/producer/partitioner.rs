//! Which partition a keyed record goes to: the one Kafka's default partitioner gives it, so that
//! producers of either kind agree.

/// `(murmur2(key) & 0x7fffffff) % partitions`.
pub(super) fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bits, with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka's lengths are `i32`; a key is far below.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (at, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_are_kafkas() {
        let cases: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
            ("a", -1_563_381_124),
        ];
        for (key, expected) in &cases[..6] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), *expected, "{key}");
        }
    }

    #[test]
    fn a_partition_is_one_of_those_there_are() {
        for n in 0..1000u32 {
            assert!(partition_of(&n.to_be_bytes(), 7) < 7);
        }
        assert_eq!(
            partition_of(b"21", 1 << 16),
            (-973_932_308i32 & 0x7fff_ffff).cast_unsigned() % (1 << 16)
        );
    }
}
