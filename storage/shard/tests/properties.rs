//! What holds for every stream of commands. Debug builds check the invariants inside apply too.

mod streams; // random streams of commands

use std::collections::BTreeSet;

use esker_shard::checkpoint::{self, Scope};
use esker_shard::{AppendOutcome, Command, Outcome, State};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use streams::{Stream, checkpoint_bytes, dice, new_shard, next_entry};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_watermark_goes_back_and_a_refusal_changes_nothing(throws in dice(120)) {
        let (mut state, mut stream) = (new_shard(1), Stream::default());
        for throw in throws {
            let command = stream.data(&state, throw);
            let before = state.clone();
            let entry = next_entry(&state, throw);
            let outcome = state.apply(entry, &command);
            went_on(&before, &state)?;
            match outcome {
                Outcome::Refused(_) => {
                    let mut blank = before.clone();
                    blank.apply_blank(entry);
                    prop_assert_eq!(&blank, &state);
                }
                Outcome::Appended(batches) => {
                    let accepted = |o: &AppendOutcome| matches!(o, AppendOutcome::Accepted { .. });
                    if !batches.iter().any(accepted) {
                        prop_assert_eq!(before.data(), state.data());
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_replica_restored_midway_ends_like_one_that_saw_it_all(
        throws in dice(120),
        midway in 0usize..120,
    ) {
        let (mut whole, mut stream) = (new_shard(2), Stream::default());
        let mut restored = new_shard(2);
        for (at, throw) in throws.into_iter().enumerate() {
            let command = stream.data(&whole, throw);
            let entry = next_entry(&whole, throw);
            if at == midway {
                restored = decoded(&restored, Scope::Local)?;
            }
            prop_assert_eq!(whole.apply(entry, &command), restored.apply(entry, &command));
        }
        prop_assert_eq!(whole.hash(), restored.hash());
        prop_assert_eq!(whole, restored);
    }

    #[test]
    fn a_catalog_restored_midway_ends_like_one_that_saw_it_all(
        throws in dice(100),
        midway in 0usize..100,
    ) {
        let (mut whole, mut restored) = (new_shard(0), new_shard(0));
        for (at, throw) in throws.into_iter().enumerate() {
            let command = Stream::catalog(throw);
            let entry = next_entry(&whole, throw);
            if at == midway {
                restored = decoded(&restored, Scope::Local)?;
            }
            prop_assert_eq!(whole.apply(entry, &command), restored.apply(entry, &command));
        }
        prop_assert_eq!(whole.hash(), restored.hash());
    }

    #[test]
    fn the_bucket_knows_everything_but_the_head(throws in dice(120)) {
        let (mut state, mut stream) = (new_shard(1), Stream::default());
        for throw in throws {
            let command = stream.data(&state, throw);
            let _ = state.apply(next_entry(&state, throw), &command);
        }
        let bucket = decoded(&state, Scope::Bucket)?;
        prop_assert_eq!(bucket.applied(), state.applied());
        prop_assert_eq!(bucket.head_size().batches, 0);
        let (ours, theirs) = (state.data().unwrap(), bucket.data().unwrap());
        prop_assert!(ours.manifest().eq(theirs.manifest()));
        prop_assert!(ours.topics().eq(theirs.topics()));
        for ((id, ours), (other, theirs)) in ours.partitions().zip(theirs.partitions()) {
            let end = ours.tiered_end().max(ours.log_start());
            prop_assert_eq!((id, end, end), (other, theirs.tiered_end(), theirs.end()));
            prop_assert_eq!(ours.log_start(), theirs.log_start());
            prop_assert_eq!(ours.fencing(), theirs.fencing());
            for (_, producer) in theirs.producers() {
                prop_assert!(producer.window().iter().all(|mark| mark.range().end() <= end));
            }
        }
        // What was written once is written again alike.
        let again = checkpoint_bytes(&bucket, Scope::Bucket);
        prop_assert_eq!(again, checkpoint_bytes(&state, Scope::Bucket));
    }

    #[test]
    fn every_command_survives_its_bytes(throws in dice(60)) {
        let (mut state, mut stream) = (new_shard(1), Stream::default());
        for throw in throws {
            let command = stream.data(&state, throw);
            let _ = state.apply(next_entry(&state, throw), &command);
            for command in [command, Stream::catalog(throw)] {
                let bytes = command.encode().unwrap();
                prop_assert_eq!(Command::decode(&bytes), Ok(command));
                for cut in 0..bytes.len() {
                    prop_assert!(Command::decode(&bytes[..cut]).is_err());
                }
            }
        }
    }

    #[test]
    fn a_damaged_command_is_refused_or_is_another_one(
        throws in dice(20),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let (mut state, mut stream) = (new_shard(1), Stream::default());
        for throw in throws {
            let command = stream.data(&state, throw);
            let _ = state.apply(next_entry(&state, throw), &command);
            let mut bytes = command.encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(other) = Command::decode(&bytes) {
                prop_assert_eq!(&other.encode().unwrap()[..], &bytes[..]);
                let _ = state.apply(next_entry(&state, throw), &other);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_neither_command_nor_checkpoint(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        tag in 0u8..20,
    ) {
        let _ = Command::decode(&bytes);
        let tagged = [&[1, 0, tag], &bytes[..]].concat();
        if let Ok(command) = Command::decode(&tagged) {
            prop_assert_eq!(&command.encode().unwrap()[..], &tagged[..]);
        }
        prop_assert!(checkpoint::decode(&bytes).is_err());
    }

    #[test]
    fn a_damaged_checkpoint_is_refused(
        throws in dice(60),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let (mut state, mut stream) = (new_shard(1), Stream::default());
        for throw in throws {
            let command = stream.data(&state, throw);
            let _ = state.apply(next_entry(&state, throw), &command);
        }
        let bytes = checkpoint_bytes(&state, Scope::Local);
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= flip;
        prop_assert!(checkpoint::decode(&damaged).is_err());
        let cut = at.index(bytes.len());
        prop_assert!(checkpoint::decode(&bytes[..cut]).is_err());
        prop_assert!(checkpoint::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_forged_checkpoint_is_refused_or_keeps_every_invariant(
        throws in dice(60),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let (mut state, mut stream) = (new_shard(1), Stream::default());
        for throw in throws {
            let command = stream.data(&state, throw);
            let _ = state.apply(next_entry(&state, throw), &command);
        }
        let mut bytes = checkpoint_bytes(&state, Scope::Local);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        forge_checksums(&mut bytes);
        if let Ok(forged) = checkpoint::decode(&bytes) {
            prop_assert_eq!(checkpoint_bytes(&forged.state, forged.scope), bytes);
            // Whatever it is, it can be read.
            let state = forged.state;
            prop_assert!(state.flushed() <= state.applied().index);
            let plan = state.flush_plan(100, state.applied().index);
            prop_assert_eq!(plan.is_some(), state.head_size().batches > 0);
            for (id, partition) in state.data().into_iter().flat_map(|data| data.partitions()) {
                let unflushed = state.data().unwrap().head_lookup(id, partition.tiered_end());
                prop_assert_eq!(unflushed.is_some(), partition.tiered_end() < partition.end());
            }
        }
    }
}

#[test]
fn streams_reach_every_outcome_that_matters() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..64 {
        let throws = dice(120).new_tree(&mut runner).unwrap().current();
        let (mut state, mut stream) = (new_shard(1), Stream::default());
        for throw in throws {
            let command = stream.data(&state, throw);
            match state.apply(next_entry(&state, throw), &command) {
                Outcome::Appended(batches) => {
                    reached.extend(batches.iter().map(first_word));
                }
                outcome => {
                    reached.insert(first_word(&outcome));
                }
            }
        }
    }
    for due in [
        "Accepted",
        "Duplicate",
        "SequenceReused",
        "Fenced",
        "StaleProducerEpoch",
        "SequenceGap",
        "DuplicateExpired",
        "ExpectedEnd",
        "TooLarge",
        "PartitionEnded",
        "SegmentCommitted",
        "Missing",
        "WrongRange",
        "Extra",
        "NotNext",
        "Swapped",
        "OtherRanges",
        "StillRead",
        "Trimmed",
        "OldVersion",
        "TombstoneDropped",
        "StillHeld",
        "Stale",
    ] {
        assert!(reached.contains(due), "{due} is not among {reached:?}");
    }
}

/// The innermost variant's name, as far as the refusals nest.
fn first_word(answer: &impl std::fmt::Debug) -> String {
    let text = format!("{answer:?}");
    let nested = [
        "Rejected(",
        "Refused(",
        "Commit(",
        "Swap(",
        "Trim(",
        "Tombstone(",
        "Catalog(",
    ];
    let inner = nested.iter().fold(text.as_str(), |text, outer| {
        text.strip_prefix(outer).unwrap_or(text)
    });
    inner
        .split(['(', ')', ' ', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// No watermark of a shard or of a partition that is still there went back.
fn went_on(before: &State, after: &State) -> Result<(), TestCaseError> {
    prop_assert!(before.time() <= after.time() && before.applied() < after.applied());
    prop_assert!(before.flushed() <= after.flushed());
    let (old, new) = (before.data().expect("data"), after.data().expect("data"));
    prop_assert!(old.flush_position() <= new.flush_position());
    prop_assert!(new.flush_position() <= after.flushed());
    prop_assert!(old.gc_boundary() <= new.gc_boundary());
    for (id, was) in old.partitions() {
        let Some(is) = new.partition(id) else {
            prop_assert!(new.has_ended(id.topic), "{} went without a tombstone", id);
            continue;
        };
        prop_assert!(was.log_start() <= is.log_start() && was.tiered_end() <= is.tiered_end());
        prop_assert!(was.end() <= is.end() && was.fencing() <= is.fencing());
    }
    for (topic, _) in old.tombstones() {
        prop_assert!(new.has_ended(topic), "{} is back", topic);
    }
    Ok(())
}

fn decoded(state: &State, scope: Scope) -> Result<State, TestCaseError> {
    let decoded = checkpoint::decode(&checkpoint_bytes(state, scope));
    decoded
        .map(|decoded| decoded.state)
        .map_err(|error| TestCaseError::fail(error.to_string()))
}

/// Makes every section's checksum right again, as far as the sections can be walked.
fn forge_checksums(bytes: &mut [u8]) {
    let (mut covered, mut at) = (0, 10);
    while let Some(header) = bytes.get(at..at + 9) {
        let length = u32::from_le_bytes(header[5..9].try_into().expect("four bytes"));
        let end = at + 9 + usize::try_from(length).expect("32 bits fit");
        if bytes.len() < end + 4 {
            return;
        }
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[covered..end]);
        let crc = u32::try_from(crc).expect("a CRC-32 has 32 bits");
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        covered = end + 4;
        at = covered;
    }
}
