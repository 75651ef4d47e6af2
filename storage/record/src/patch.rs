//! Writes what the checksum does not cover, once a shard has given the offsets.

use esker_types::{LeaderEpoch, Offset};

use crate::header::{HEADER_BYTES, Header, layout};

/// Sets base offset and leader epoch at the front of `batch`, the bytes of exactly one batch that
/// was opened before they were copied here.
///
/// # Panics
/// If `batch` is shorter than a header; in debug builds also if it is no whole batch whose CRC is
/// right, before or after. Both are defects of the caller, not of input.
pub fn patch(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    patch_front(batch, base_offset, leader_epoch);
    debug_assert!(
        Header::parse(batch).is_ok_and(|header| header.bytes == batch.len()
            && header.crc == crc_fast::crc32_iscsi(&batch[layout::CRC_FROM..])),
        "the patched bytes are not one whole batch with its checksum"
    );
}

/// The same where the rest of the batch lies elsewhere: `front` is its header at least.
///
/// # Panics
/// If it is shorter than a header: a defect of the caller.
pub fn patch_front(front: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(
        front.len() >= HEADER_BYTES,
        "{} bytes are less than the header of a batch",
        front.len()
    );
    debug_assert!(
        i32::try_from(leader_epoch.0).is_ok(),
        "leader epoch {leader_epoch} leaves Kafka's wire"
    );
    let offset_end = layout::BASE_OFFSET + size_of::<u64>();
    front[layout::BASE_OFFSET..offset_end].copy_from_slice(&base_offset.get().to_be_bytes());
    let epoch_end = layout::LEADER_EPOCH + size_of::<u32>();
    front[layout::LEADER_EPOCH..epoch_end].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use esker_types::Timestamp;

    use super::*;
    use crate::{Batch, Builder, Compression, NewRecord};

    #[test]
    fn a_patched_batch_still_has_its_checksum() {
        let mut builder = Builder::new(Compression::None, 1024);
        builder.push(&NewRecord::value(Timestamp(1), b"x")).unwrap();
        let batch = builder.finish(None).unwrap();
        let mut bytes = batch.bytes().to_vec();
        patch(&mut bytes, Offset::new(77).unwrap(), LeaderEpoch(5));
        let patched = Batch::open(bytes.into()).unwrap();
        assert_eq!(patched.header().base_offset.get(), 77);
        assert_eq!(patched.header().leader_epoch, Some(LeaderEpoch(5)));
        assert_eq!(patched.header().crc, batch.header().crc);
    }
}
