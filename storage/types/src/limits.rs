//! Every bound of the system, in one place, with the relations between them proved when this
//! file is compiled. A bound that an operator may move is a default here and a key in the
//! configuration; the others are what the formats and the memory budget rest on.

use std::time::Duration;

/// One KiB.
pub const KIB: usize = 1 << 10;
/// One MiB.
pub const MIB: usize = 1 << 20;
/// One GiB.
pub const GIB: u64 = 1 << 30;

// ── Names ────────────────────────────────────────────────────────────────────────────────────

/// Bytes of a topic name (Kafka's limit).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 100_000;

// ── Record batches ───────────────────────────────────────────────────────────────────────────

/// Bytes of a batch as it travels, unless a topic says otherwise (`max_batch_bytes`).
pub const BATCH_BYTES_DEFAULT: usize = MIB;
/// The most a topic may allow.
pub const BATCH_BYTES_MAX: usize = 8 * MIB;
/// Bytes of a batch's records once decompressed: what a reader must be ready to hold.
pub const BATCH_DECODED_BYTES_MAX: usize = 64 * MIB;
/// Bytes of the smallest record in Kafka's layout: length, attributes, two deltas, two lengths,
/// header count. It bounds the record count of a batch by its bytes alone.
pub const RECORD_BYTES_MIN: usize = 7;
/// log2 of the largest window a zstd frame may ask a reader to keep: 8 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

// ── Producers ────────────────────────────────────────────────────────────────────────────────

/// Batches remembered per producer and partition, for duplicates (Kafka remembers 5).
pub const PRODUCER_WINDOW: usize = 5;
/// Producers remembered per partition; one more is an error, never an eviction.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 4096;
/// Bytes that a checkpoint takes for what a partition remembers of one producer, at most.
pub const PRODUCER_CHECKPOINT_BYTES: usize = 40 + PRODUCER_WINDOW * 32;
/// Producers that all partitions of a shard remember together, one of two partitions twice: a leader takes no
/// append that adds one. What is on its way is not counted, and passes it by [`APPENDS_ON_THEIR_WAY_MAX`] at most.
pub const PRODUCERS_OF_SHARD_MAX: usize = 1 << 20;
/// Shard time after its last append at which a producer is forgotten.
pub const PRODUCER_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// Producer ids the catalog hands to an agent at once.
pub const PRODUCER_ID_BLOCK: u64 = 1000;

// ── Raft entries ─────────────────────────────────────────────────────────────────────────────

/// Payload bytes that a leader joins into one entry.
pub const ENTRY_PAYLOAD_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Batches that a leader joins into one entry.
pub const ENTRY_BATCHES_MAX: usize = 4096;
/// Bytes that one raft RPC or one read of the log carries, at least one entry aside.
pub const LOG_READ_BYTES_MAX: usize = 4 * MIB;

// ── Shard state ──────────────────────────────────────────────────────────────────────────────

/// Bytes of a shard's command as a raft entry carries it, batch payload aside.
pub const COMMAND_BYTES_MAX: usize = 4 * MIB;
/// Partition ranges that one segment, and one command, names.
pub const SEGMENT_RANGES_MAX: usize = 1 << 17;
/// Mixed segments in a shard's manifest; a flush beyond is refused, so that the state stays small.
pub const MIXED_SEGMENTS_MAX: usize = 1 << 20;
/// Leader epoch starts a partition remembers; beyond, the oldest is forgotten.
pub const LEADER_EPOCHS_PER_PARTITION_MAX: usize = 64;
/// Topics of a cluster, those that are being deleted included.
pub const TOPICS_MAX: usize = 100_000;
/// Partitions of a cluster, those that are being deleted included.
pub const PARTITIONS_MAX: u32 = 1_000_000;
/// Data shards a cluster may be given at init.
pub const DATA_SHARDS_MAX: u32 = 1024;
/// WAL nodes that a cluster is founded with: each has a replica of every shard, and more make
/// appends slower and lose no later.
pub const FOUNDERS_MAX: usize = 7;
/// Nodes that hold a shard, with a vote or without: those that vote, before and after a change.
pub const HOLDERS_MAX: usize = 2 * FOUNDERS_MAX;
/// Entries that a node may lack when it is given a vote: they are on their way.
pub const LEARNER_LAG_MAX: u64 = 1000;
/// Bytes of one piece of a checkpoint as it is written and sent.
pub const CHECKPOINT_CHUNK_BYTES: usize = MIB;
/// Bytes of a storage class's name.
pub const STORAGE_CLASS_BYTES_MAX: usize = 32;

// ── WAL ──────────────────────────────────────────────────────────────────────────────────────

/// Groups of frames begin at multiples of this. It is the page of the file systems we run on and
/// the unit a disk may tear.
pub const WAL_ALIGN: usize = 4 * KIB;
/// Bytes of one group: what one `pwritev` and one `fdatasync` carry.
pub const WAL_GROUP_BYTES_MAX: usize = 16 * MIB;
/// Bytes of one WAL file, prewritten and recycled.
pub const WAL_FILE_BYTES: u64 = 64 * MIB as u64;
/// After this long without an append, the tail is sealed by a group header of its own.
pub const WAL_SEAL_IDLE: Duration = Duration::from_millis(10);

/// A frame that waits this long for a WAL file ends the process: the reserve is there so that none
/// ever does, and what would make room waits behind it.
pub const WAL_STALL_FATAL: Duration = Duration::from_secs(60);

// ── Head ─────────────────────────────────────────────────────────────────────────────────────

/// WAL bytes on disk of a single node (`dev`).
pub const HEAD_DISK_BYTES_DEV: u64 = GIB;
/// WAL bytes on disk of a cluster's node.
pub const HEAD_DISK_BYTES_CLUSTER: u64 = 8 * GIB;
/// Head bytes kept in memory for readers and flushers.
pub const HEAD_MEMORY_BYTES: usize = 256 * MIB;
/// Batches of all heads of a node, and so of any one: the state machine keeps about 150 bytes of
/// each in memory and names each in its checkpoint.
pub const HEAD_BATCHES_MAX: u64 = 1 << 20;
/// Data shards of `dev`, fixed at init.
pub const DATA_SHARDS_DEV: u32 = 4;
/// Data shards of a cluster, fixed at init.
pub const DATA_SHARDS_CLUSTER: u32 = 16;

/// Times that a read of the head starts over because the head lets go of what is being read.
pub const HEAD_READS_MAX: usize = 8;
/// Runs, as for a flush, that a node reads from the disk of its log at once; others wait.
pub const HEAD_RUNS_AT_ONCE: usize = 2;
/// Entries that one of them takes from the disk at once.
pub const HEAD_ENTRIES_AT_ONCE: usize = 4;

// ── Flush and segments ───────────────────────────────────────────────────────────────────────

/// Raw bytes of a block: the unit of read, cache and compression.
pub const BLOCK_BYTES: usize = MIB;
/// Head bytes of a shard that trigger a flush.
pub const FLUSH_BYTES: u64 = 64 * MIB as u64;
/// Parts of what one flush takes that are read at once.
pub const FLUSH_READS_AT_ONCE: u64 = 2;
/// Head bytes of a shard that may be flushed before any other trigger, since what they are read from is memory only
/// for a while. Fewer wait for theirs: a bucket charges by the request.
pub const FLUSH_EARLY_BYTES: u64 = 16 * MIB as u64;
/// Segments of a shard from which on none is flushed so early: of the room for more, small ones take as much.
pub const FLUSH_EARLY_SEGMENTS_MAX: usize = MIXED_SEGMENTS_MAX / 2;
/// How long a node goes by what it found of its heads.
pub const FLUSH_EARLY_LOOK: Duration = Duration::from_millis(100);
/// Age of a shard's oldest unflushed batch that triggers a flush.
pub const FLUSH_AGE: Duration = Duration::from_secs(10);
/// The same for `dev`.
pub const FLUSH_AGE_DEV: Duration = Duration::from_secs(5);

/// Engines that a leader remembers for one job of a shard: others get none of it.
pub const WORKERS_MAX: usize = 64;
/// How long an engine may be silent at most before another one has its jobs.
pub const WORKER_SILENCE_MAX: Duration = Duration::from_secs(3600);
/// How often an engine asks whether a flush is for it, and says that it is at it.
pub const FLUSH_TURN: Duration = Duration::from_secs(1);
/// How long an engine keeps others from a job that it is at: longer than it ever takes while the bucket
/// is well.
pub const JOB_MAX: Duration = Duration::from_secs(60);
/// Flushes of one agent at once: each holds its run and its segment in memory.
pub const FLUSHES_IN_FLIGHT: usize = 2;
/// How often a busy shard is looked at, to see whether a flush is due.
pub const FLUSH_LOOK: Duration = Duration::from_millis(20);
/// First pause after a flush that failed.
pub const FLUSH_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest.
pub const FLUSH_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a forced flush waits for the claim on the bucket to be confirmed.
pub const FLUSH_NOW_PATIENCE: Duration = Duration::from_secs(3);
/// Times that a forced flush lets another flusher go first.
pub const FLUSH_NOW_TURNS_MAX: usize = 1000;

// ── Topics ───────────────────────────────────────────────────────────────────────────────────

/// How long an agent goes by what it knows of a topic's settings.
pub const TOPIC_VIEW_AGE: Duration = Duration::from_secs(1);
/// Topics of one page of a listing.
pub const TOPIC_PAGE: usize = 1000;
/// How often an agent looks whether every data shard has what the catalog says.
pub const SETTLE_INTERVAL: Duration = Duration::from_secs(60);

// ── Checking batches ─────────────────────────────────────────────────────────────────────────

/// Bytes that a check goes through, compressed ones and what they decode to, without a change of
/// thread.
pub const CHECK_INLINE_BYTES: usize = 64 * KIB;
/// Buffers for decoding that an agent keeps.
pub const SCRATCHES_MAX: usize = 16;
/// Bytes of each of them between two batches.
pub const SCRATCH_BYTES: usize = 4 * MIB;

// ── Segment format ───────────────────────────────────────────────────────────────────────────

/// Batches of one segment: what a flush of the smallest ones holds, so that the index fits memory.
pub const SEGMENT_BATCHES_MAX: usize = 1 << 20;
/// Blocks of one segment.
pub const SEGMENT_BLOCKS_MAX: usize = 1 << 16;
/// Bytes of a page of a partition's index: what a lookup reads.
pub const INDEX_PAGE_BYTES_MAX: usize = 64 * KIB;
/// Bytes of the extensions of one index entry.
pub const INDEX_EXTENSION_BYTES_MAX: usize = 256;
/// Bytes at which a page of the directory is closed.
pub const DIRECTORY_PAGE_BYTES: usize = 64 * KIB;
/// Bytes of a page of the directory: one partition with all its producers may need this.
pub const DIRECTORY_PAGE_BYTES_MAX: usize = 2 * MIB;
/// Bytes of a segment's footer: block table, pages of the directory, tombstones.
pub const SEGMENT_FOOTER_BYTES_MAX: usize = 16 * MIB;
/// Bytes that the first GET of a segment asks for, from its end.
pub const SEGMENT_TAIL_BYTES: usize = 256 * KIB;

// ── Object store ─────────────────────────────────────────────────────────────────────────────

/// Bytes of one object: what a single PUT carries. We never upload in parts.
pub const OBJECT_PUT_BYTES_MAX: usize = 512 * MIB;
/// Bytes that one ranged GET asks for, so that one answer fits the memory budget.
pub const OBJECT_GET_BYTES_MAX: usize = 64 * MIB;
/// Keys of one page of a listing.
pub const OBJECT_LIST_PAGE: usize = 1000;
/// DELETE requests of one call that run at once.
pub const OBJECT_DELETES_IN_FLIGHT: usize = 16;
/// Named `memory://` buckets of one process.
pub const OBJECT_MEMORY_BUCKETS_MAX: usize = 4096;

// ── Block cache ──────────────────────────────────────────────────────────────────────────────

/// Loads of distinct blocks that run at once; a further one runs alone, without company.
pub const CACHE_LOADS_MAX: usize = 4096;
/// Bytes of one block that the cache keeps: a batch of the largest kind that decoded to its
/// limit, alone in its block. A larger value passes through.
pub const CACHE_BLOCK_BYTES_MAX: usize = BATCH_DECODED_BYTES_MAX + MIB;

// ── Reading ──────────────────────────────────────────────────────────────────────────────────

/// Segments that one question for a manifest is answered with.
pub const MANIFEST_PAGE: usize = 1000;
/// Bytes of opened segments (tail, footer, directory) that an agent keeps.
pub const OPENED_SEGMENTS_BYTES: usize = 64 * MIB;
/// Pairs of a partition and a segment of which it is remembered what the one holds of the other, of
/// about 100 bytes each.
pub const HOLDINGS_REMEMBERED_MAX: usize = 128 << 10;
/// Segments opened at once by a search for a time.
pub const TIME_LOOKS_IN_FLIGHT: usize = 8;
/// Pages of an opened segment's directory that are kept decoded.
pub const DIRECTORY_PAGES_KEPT: usize = 4;
/// Raw bytes that a reader of the bucket is ahead at first.
pub const READ_AHEAD_BYTES_MIN: usize = 2 * MIB;
/// The most it comes to be ahead.
pub const READ_AHEAD_BYTES_MAX: usize = 32 * MIB;
/// What all readers of an agent are ahead together, beyond what each is at first.
pub const READ_AHEAD_ALL_BYTES: usize = 256 * MIB;
/// Blocks that it is ahead, however small.
pub const READ_AHEAD_BLOCKS_MAX: usize = 64;
/// Stored bytes of neighbouring blocks that one GET brings.
pub const READ_RUN_BYTES_MAX: usize = 4 * MIB;
/// Bytes of the head that one step of a reader brings, one batch aside.
pub const READ_HEAD_BYTES: usize = MIB;
/// Times that one step of a reader starts over because what it reads moved from the head to the
/// bucket, or out of the manifest.
pub const READ_TURNS_MAX: usize = 8;

// ── Keeping the bucket ───────────────────────────────────────────────────────────────────────

/// Pages of a listing that is read as a whole: claims and checkpoints, of which there are few.
pub const LIST_PAGES_MAX: usize = 64;
/// How often an engine looks whether its bucket is still its cluster's.
pub const CLAIM_LOOK: Duration = Duration::from_secs(60);
/// The same, while it is not sure of that and writes no segment.
pub const CLAIM_REST: Duration = Duration::from_secs(1);
/// How often an agent looks whether a shard's bucket checkpoint is due.
pub const BUCKET_CHECKPOINT_LOOK: Duration = Duration::from_secs(10);
/// Age of a shard's bucket checkpoint after which what was committed since makes the next one due.
pub const BUCKET_CHECKPOINT_AGE: Duration = Duration::from_secs(60);
/// Segments committed since a shard's bucket checkpoint that make the next one due out of turn.
pub const BUCKET_CHECKPOINT_SEGMENTS: usize = 16;
/// Bytes of one request when a checkpoint is read from the bucket.
pub const BUCKET_CHECKPOINT_GET_BYTES: usize = 8 * MIB;
/// How often the time of a shard to which nobody appends is written into its log.
pub const TICK_PERIOD: Duration = Duration::from_secs(300);
/// How often an agent looks what retention lets go.
pub const RETENTION_PERIOD: Duration = Duration::from_secs(30);
/// Segments that each walk of a retention round opens.
pub const RETENTION_SEGMENTS: usize = 256;
/// Segments of the manifest that each walk of a retention round passes by.
pub const RETENTION_SEGMENTS_PASSED: usize = 16 * MANIFEST_PAGE;
/// Partitions to be trimmed after which a walk of a retention round opens no further segment.
pub const RETENTION_TRIMS: usize = 4096;
/// Trims and other commands of one round that are under way at once.
pub const RETENTION_IN_FLIGHT: usize = 16;
/// Ranges whose bytes retention remembers; beyond, neighbours are remembered as one.
pub const RETENTION_RANGES_MAX: usize = 1 << 20;
/// Bytes of opened segments that retention keeps of its own.
pub const RETENTION_OPENED_BYTES: usize = 8 * MIB;
/// Segments of which retention remembers which range keeps them alive.
pub const RETENTION_ALIVE_MAX: usize = 1 << 16;
/// Segments that one `Swap` takes out.
pub const SWAP_SEGMENTS_MAX: usize = 256;
/// How often an agent looks for objects that nothing names.
pub const COLLECT_PERIOD: Duration = Duration::from_secs(300);
/// Time after which a round of the collector starts no delete.
pub const COLLECT_ROUND_MAX: Duration = Duration::from_secs(120);
/// How long an object that nothing names is kept, for readers that still know it.
pub const READ_GRACE: Duration = Duration::from_secs(600);
/// Objects that nothing names of which the collector remembers when it first saw them.
pub const COLLECT_SIGHTS_MAX: usize = 1 << 17;
/// Tombstones that one round of the collector drops, of each shard.
pub const COLLECT_TOMBSTONES: usize = 4096;

// ── Raft timing ──────────────────────────────────────────────────────────────────────────────

/// How often a leader shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// Shards of a node look at the time at multiples of this, so that it wakes for all of them at once. Longer than
/// raft's own ticks, of which every other would be skipped otherwise. Much shorter than a heartbeat: beats are late by
/// up to as much, and two nodes that look at one moment would campaign together.
pub const TICK_STEP: Duration = Duration::from_millis(25);
/// Shortest silence after which a follower campaigns.
pub const ELECTION_MIN: Duration = Duration::from_millis(300);
/// Longest.
pub const ELECTION_MAX: Duration = Duration::from_millis(600);
/// How long a follower's turn to campaign lasts once the leader is silent for the longest: two syncs and
/// round trips, as a rule.
pub const SUCCESSION_TURN: Duration = Duration::from_millis(60);
/// Within which each shard's replicas are compared once.
pub const COMPARE_PERIOD: Duration = Duration::from_secs(600);
/// How long a leader asks a quorum whether it still leads, and applies what it learns, before it says
/// that it does not: one that is cut off would ask for ever.
pub const READ_INDEX_MAX: Duration = Duration::from_secs(3);
/// How long a change of who holds a shard may take to be on a quorum before its outcome is unknown.
pub const MEMBERS_CHANGE_MAX: Duration = Duration::from_secs(10);
/// Bytes of one message between nodes: what one read of the log brings, which is below its bound
/// before the last entry, then that entry, and framing.
pub const PEER_MESSAGE_BYTES_MAX: usize =
    LOG_READ_BYTES_MAX + ENTRY_PAYLOAD_BYTES_MAX + COMMAND_BYTES_MAX + MIB;
/// Bytes of a shard's state that a node takes in a snapshot.
pub const SNAPSHOT_STATE_BYTES_MAX: u64 = GIB;
/// Snapshots that a node takes at once; one more waits.
pub const INSTALLS_MAX: usize = 1;
/// Bytes of a snapshot's head that are read from the log, or written to it, in one step; one entry may be
/// larger, and then goes alone.
pub const SNAPSHOT_PART_BYTES: usize = MIB;
/// Bytes of a snapshot's head that wait for the disk of who takes it. With the part that is being gathered
/// and one entry on its way, all that it keeps in memory of a head of any size.
pub const SNAPSHOT_BYTES_IN_FLIGHT: usize = 4 * MIB;
/// How long a node keeps, for a snapshot that it sends, what the bucket has taken meanwhile. After that the
/// transfer fails if it comes to one that is gone, and begins anew from a newer snapshot with a shorter head.
pub const SNAPSHOT_PIN_MAX: Duration = Duration::from_secs(60);
/// How long a node keeps, after it has sent a snapshot, the entries that follow on it: for who takes it to go
/// on from there, instead of from another snapshot.
pub const SNAPSHOT_FOLLOW_MAX: Duration = Duration::from_secs(3);
/// Nothing is kept for snapshots once less than one part in so many of the WAL's budget is free.
pub const SNAPSHOT_PIN_SHARE: u64 = 4;
/// Silence within a snapshot after which it has failed.
pub const INSTALL_STALL_MAX: Duration = Duration::from_secs(30);
/// How long who sends a snapshot waits while nothing of it is taken, nor answered: those of other shards may
/// come before it, and the disk of who takes it may be slow. Then it has failed, and begins anew.
pub const INSTALL_ANSWER_MAX: Duration = Duration::from_secs(300);
/// How long a follower may owe an answer to an append before it is connected to anew. Longer than an
/// fdatasync of a slow disk takes: what was sent would have to be sent again.
pub const REPLICATION_STALL_MAX: Duration = Duration::from_secs(5);
/// An fdatasync that takes longer hands leadership over.
pub const FSYNC_HANDOVER: Duration = Duration::from_millis(250);
/// Between two times that a node hands everything over for a slow disk.
pub const HAND_OVER_REST: Duration = Duration::from_secs(10);
/// Between two times that a node hands a shard over for damage in its log: others' may be no better.
pub const DAMAGE_REST: Duration = Duration::from_secs(60);
/// A node with less room than this in its WAL, for appends of all its shards, hands over what it leads: batches
/// of the usual size are refused.
pub const LEAD_ROOM_MIN: u64 = BATCH_BYTES_DEFAULT as u64;
/// Room that a node is to have that is handed a shard for its room, or to spread what is led. Several times
/// [`LEAD_ROOM_MIN`], so that it does not hand it back for the next batches.
pub const LEAD_ROOM_GIVEN: u64 = 4 * LEAD_ROOM_MIN;
/// How long a node is without room before it hands over: what waits for the bucket may be released any moment.
pub const FULL_HANDOVER: Duration = Duration::from_secs(2);
/// Between two times that a node hands a shard over for want of room.
pub const FULL_REST: Duration = Duration::from_secs(30);
/// How long a node that hands over waits until it leads no more.
pub const HAND_OVER_MAX: Duration = Duration::from_millis(300);
/// An fdatasync that takes longer ends the process.
pub const FSYNC_FATAL: Duration = Duration::from_secs(30);

/// Bytes of frames that wait for a WAL node's disk, or are on their way there, before a producer's batches
/// and a leader's entries have to wait: what a disk slower than its load would else pile up in memory, and
/// a vote would wait behind. Two of the largest groups: one is written, the next is gathered.
pub const WAL_QUEUED_BYTES_MAX: usize = 32 * MIB;

/// How far a leader's wall clock may leave its monotonic clock before shard time stops.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(10);
/// How long a voter may take to say what its wall clock says.
pub const CLOCK_ASKED_MAX: Duration = Duration::from_secs(1);
/// How often a leader whose clock no quorum agreed with asks again.
pub const CLOCK_ASKED_REST: Duration = Duration::from_secs(10);
/// How far a wall clock may be ahead of a shard's time when its only voter starts: a week's
/// standstill. Beyond it the clock is no evidence, and shard time waits for an operator.
pub const CLOCK_GAP_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

// ── The leader's queue ───────────────────────────────────────────────────────────────────────

/// Payload bytes a shard's leader lets wait or be in flight. More makes latency, not throughput:
/// a group of a few MiB already saturates a disk.
pub const APPEND_BYTES_IN_FLIGHT: usize = 16 * MIB;
/// Appends a shard's leader lets wait.
pub const APPENDS_WAITING_MAX: usize = ENTRY_BATCHES_MAX;
/// Entries a shard's leader has in flight. While they are, what arrives joins the next.
pub const ENTRIES_IN_FLIGHT: usize = 4;
/// Appends that a shard's leader has admitted and not applied: those that wait, those of the entries in flight,
/// those of the one that is put together, and one at the door.
pub const APPENDS_ON_THEIR_WAY_MAX: usize =
    APPENDS_WAITING_MAX + (ENTRIES_IN_FLIGHT + 1) * ENTRY_BATCHES_MAX + 1;

// ── The head over the wire ───────────────────────────────────────────────────────────────────

/// How long an agent goes on asking who leads a shard, and sending what may be sent again.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(6);
/// What one question may take that changes nothing.
pub const HEAD_CALL_MAX: Duration = Duration::from_secs(2);
/// What a run may take that is read from a log for a flush: several MiB, of a disk that may be busy.
pub const HEAD_RUN_MAX: Duration = Duration::from_secs(10);
/// What one proposal may take; then it is unknown what became of it.
pub const HEAD_PROPOSE_MAX: Duration = Duration::from_secs(10);
/// How long a node lets a question wait for something new before it makes sure that it still leads.
pub const HEAD_POLL_MAX: Duration = Duration::from_secs(5);
/// Silence within an answer of many parts after which it has failed.
pub const HEAD_FETCH_STALL_MAX: Duration = Duration::from_secs(30);
/// Silence of a leader that owes answers to appends after which the others are asked. Longer than a
/// handover takes, and short enough that appends go on within three of the longest elections.
pub const HEAD_APPEND_STALL_MAX: Duration = Duration::from_millis(1200);
/// How long a node that has applied less than its caller has seen tries to catch up.
pub const HEAD_BEHIND_MAX: Duration = ELECTION_MAX;
/// How long a follower that has applied less than a reader was told waits for it: who leads tells its
/// followers what is committed with every heartbeat, and mostly sooner.
pub const HEAD_FOLLOWER_BEHIND_MAX: Duration = HEARTBEAT;
/// Reads of an agent that wait for a follower; others ask who leads.
pub const HEAD_FOLLOWER_CALLS_MAX: usize = HEAD_CALLS_MAX;
/// What one read of a follower may take; then who leads is asked.
pub const HEAD_FOLLOWER_CALL_MAX: Duration = Duration::from_millis(500);
/// How long a follower that did not answer for a shard is not asked about it again.
pub const HEAD_FOLLOWER_REST: Duration = Duration::from_secs(5);
/// The longest rest after the first node that did not answer; it doubles with each.
pub const HEAD_REST_FIRST: Duration = Duration::from_millis(5);
/// The longest of all.
pub const HEAD_REST_MAX: Duration = Duration::from_millis(50);
/// How long a node that kept its callers waiting is asked after the others.
pub const HEAD_NODE_REST: Duration = Duration::from_secs(1);
/// Leaders named by nodes that are gone to without a rest.
pub const HEAD_HOPS_MAX: u32 = 3;
/// Nodes that an agent knows; beyond, one that was learned gives way to the next.
pub const HEAD_NODES_MAX: usize = 64;
/// Questions of an agent about one shard that are under way; one more waits. Each shard has its own: those of
/// one that nobody answers take the place of no other's.
pub const HEAD_CALLS_MAX: usize = 256;
/// Questions of an agent that wait for something new: each partition that is followed, each shard.
pub const HEAD_POLLS_MAX: usize = READ_STREAMS_MAX + DATA_SHARDS_MAX as usize;
/// Appends of one shard that an agent has under way, and a node of one of its streams.
pub const HEAD_APPENDS_MAX: usize = APPENDS_WAITING_MAX;
/// Their bytes.
pub const HEAD_APPEND_BYTES_MAX: usize = APPEND_BYTES_IN_FLIGHT;
/// Callers' shards of which a node knows who appends to them; those that do now are among them.
pub const HEAD_SESSIONS_MAX: usize = 1 << 16;
/// Bytes that one answer has a node read from its disk, one entry aside: what is asked for may be a little of many.
pub const HEAD_READ_DISK_BYTES_MAX: usize = 32 * MIB;
/// Bytes of batches that one answer carries, one batch or one entry aside.
pub const HEAD_READ_BYTES_MAX: usize = 4 * MIB;
/// Bytes around each batch of an answer.
pub const HEAD_BATCH_FRAMING_BYTES: usize = 128;
/// Bytes of one page of a listing, one item aside.
pub const HEAD_LISTING_BYTES_MAX: usize = 4 * MIB;
/// Items of one page of a listing.
pub const HEAD_LISTING_MAX: usize = 4096;
/// Bytes of one piece of an answer that comes in pieces.
pub const HEAD_PIECE_BYTES: usize = CHECKPOINT_CHUNK_BYTES;
/// Bytes of a flush job: its partitions, each with its topic's name, and its tombstones.
pub const HEAD_FLUSH_JOB_BYTES_MAX: usize =
    SEGMENT_RANGES_MAX * (TOPIC_NAME_BYTES_MAX + 96) + TOPICS_MAX * 24 + KIB;

// ── Checkpoints ──────────────────────────────────────────────────────────────────────────────

/// How often a node looks whether a checkpoint, a purge or a release is due.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Entries applied since a shard's checkpoint after which the next is made: what a restart may
/// have to apply again.
pub const CHECKPOINT_ENTRIES: u64 = 50_000;
/// Age of a checkpoint after which what was flushed since makes the next one due.
pub const CHECKPOINT_AGE: Duration = Duration::from_secs(10);
/// Bytes of a state for which its checkpoint may be as much older again: what checkpoints of a shard write
/// is bounded by this much in [`CHECKPOINT_AGE`], however many partitions and segments it has, until the log has
/// grown too long.
pub const CHECKPOINT_AGE_BYTES: u64 = 4 * MIB as u64;
/// WAL files after which the shards that hold the oldest are checkpointed out of turn.
pub const WAL_FILES_HELD: usize = 3;
/// WAL files after which what still holds the oldest is copied to the tail.
pub const WAL_FILES_MOVED: usize = 8;

// ── The wire ─────────────────────────────────────────────────────────────────────────────────

/// Room for everything around a batch in one gRPC message.
pub const MESSAGE_FRAMING_BYTES: usize = MIB;
/// Bytes of one gRPC message.
pub const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + MESSAGE_FRAMING_BYTES;
/// Bytes of a call's metadata. Headers above [`HEADER_BYTES_MAX`] are not even taken in.
pub const METADATA_BYTES_MAX: usize = 8 * KIB;
/// Bytes of all headers of a call, as HTTP/2 counts them: names, values, 32 for each.
pub const HEADER_BYTES_MAX: usize = 16 * KIB;
/// What a unary call, or the beginning of a stream, may take at most; a client may ask for less.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(300);
/// Connections of one listener; one more is closed as soon as it is made.
pub const CONNECTIONS_MAX: usize = 4096;
/// How long a listener rests that has no descriptor left for the next connection.
pub const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often it says so while that lasts.
pub const ACCEPT_TOLD: Duration = Duration::from_secs(10);
/// What a new connection has to say its first bytes, those that open HTTP/2.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave its replies where they are before its stream is ended, and the bytes
/// on its socket before the connection is.
pub const REPLY_STALL_MAX: Duration = Duration::from_secs(60);
/// Appends a client may have in flight per partition: what the producer window can tell apart.
pub const APPENDS_IN_FLIGHT_PER_PARTITION: usize = PRODUCER_WINDOW;

/// Appends of one stream on their way; beyond, the stream is not read from.
pub const STREAM_APPENDS_MAX: usize = 256;
/// Batches of one stream that are checked at the same time.
pub const STREAM_CHECKS_MAX: usize = 8;
/// Streams of appends that an agent has open: what it is sent before it can weigh it is bounded by
/// their number alone.
pub const APPEND_STREAMS_MAX: usize = 4096;
/// Bytes that an agent holds for appends on their way, all streams together.
pub const APPEND_BUDGET_BYTES: usize = 256 * MIB;
/// What an append on its way costs beside its batch.
pub const APPEND_OVERHEAD_BYTES: usize = KIB;
/// Streams of reads that an agent has open: one a partition that somebody follows.
pub const READ_STREAMS_MAX: usize = 4096;
/// Bytes that an agent holds for reads beside the one reply that each may always have: replies that
/// wait for their clients, and batches that are being decoded.
pub const READ_BUDGET_BYTES: usize = 256 * MIB;
/// How long a call waits for a share of the budget.
pub const BUDGET_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes at which a reply of a read is closed, one batch or record aside.
pub const READ_REPLY_BYTES: usize = MIB;
/// Records at which a reply of a read is closed: each takes far more memory than the smallest has
/// bytes.
pub const READ_REPLY_RECORDS_MAX: usize = 16_384;
/// Replies of a read that wait for the client.
pub const READ_REPLIES_WAITING: usize = 4;
/// Verifications that an agent has under way: each reads the whole bucket.
pub const VERIFICATIONS_MAX: usize = 1;
/// Things that one reply of a verification says are wrong, of less than a KiB each.
pub const FINDINGS_PER_REPLY_MAX: usize = 1000;

// A reader must be able to hold what a batch may decode to, and a batch is no larger decoded than
// a zstd window plus what the frame declares; the message must fit a batch and its framing.
const _: () = assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < BATCH_DECODED_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX >= BATCH_BYTES_MAX + MESSAGE_FRAMING_BYTES);
const _: () = assert!(METADATA_BYTES_MAX < HEADER_BYTES_MAX);
const _: () = assert!((1 << ZSTD_WINDOW_LOG_MAX) <= BATCH_DECODED_BYTES_MAX);
// Lengths and counts of a batch are `i32` on the wire.
const _: () = assert!(BATCH_DECODED_BYTES_MAX < i32::MAX as usize);
// An entry holds at least one batch of any size; a group holds at least one entry with its
// framing; a file holds several groups.
const _: () = assert!(ENTRY_PAYLOAD_BYTES_MAX >= BATCH_BYTES_MAX);
const _: () = assert!(WAL_GROUP_BYTES_MAX >= ENTRY_PAYLOAD_BYTES_MAX + MIB);
const _: () = assert!(WAL_FILE_BYTES >= 4 * WAL_GROUP_BYTES_MAX as u64);
const _: () = assert!(WAL_FILE_BYTES.is_multiple_of(WAL_ALIGN as u64));
const _: () = assert!(WAL_ALIGN.is_power_of_two());
// A single append of any size finds room in the agent's budget, while it is decoded, too.
const _: () = assert!(
    APPEND_BUDGET_BYTES >= BATCH_BYTES_MAX + BATCH_DECODED_BYTES_MAX + APPEND_OVERHEAD_BYTES
);
const _: () = assert!(READ_BUDGET_BYTES >= BATCH_DECODED_BYTES_MAX);
// A client never has more in flight than the window can recognise as duplicates.
const _: () = assert!(APPENDS_IN_FLIGHT_PER_PARTITION <= PRODUCER_WINDOW);
// A follower sees several heartbeats before it campaigns, and a slow disk hands over before it
// looks dead.
const _: () = assert!(HEARTBEAT.as_millis() * 3 <= ELECTION_MIN.as_millis());
// Raft ticks at 13/64 of a heartbeat.
const _: () = assert!(TICK_STEP.as_micros() * 64 > HEARTBEAT.as_micros() * 13);
const _: () = assert!(TICK_STEP.as_millis() * 4 <= HEARTBEAT.as_millis());
const _: () = assert!(ELECTION_MIN.as_millis() < ELECTION_MAX.as_millis());
// By then the others have elected somebody else, if they can.
const _: () = assert!(READ_INDEX_MAX.as_millis() >= 3 * ELECTION_MAX.as_millis());
const _: () = assert!(FSYNC_HANDOVER.as_millis() < ELECTION_MIN.as_millis());
const _: () = assert!(FSYNC_HANDOVER.as_millis() < FSYNC_FATAL.as_millis());
// A single append of any size is admitted, and the files that are moved are beyond those held.
const _: () = assert!(APPEND_BYTES_IN_FLIGHT >= BATCH_BYTES_MAX);
const _: () = assert!(WAL_FILES_HELD < WAL_FILES_MOVED);
// What a shard remembers of producers fills half of what a bucket checkpoint may be: it is one object. The rest is
// for partitions and segments.
const _: () = assert!(
    (PRODUCERS_OF_SHARD_MAX + APPENDS_ON_THEIR_WAY_MAX) * PRODUCER_CHECKPOINT_BYTES
        <= OBJECT_PUT_BYTES_MAX / 2
);
// A flush, a block of any size and a checkpoint's tail fit the requests that carry them.
const _: () = assert!(2 * FLUSH_BYTES <= OBJECT_PUT_BYTES_MAX as u64);
const _: () = assert!(SEGMENT_FOOTER_BYTES_MAX <= OBJECT_GET_BYTES_MAX);
// A segment's ranges (28 bytes each) fit in one command, a command in a group of the WAL, and a
// topic's placement (4 bytes a partition) in one piece of a checkpoint.
const _: () = assert!(SEGMENT_RANGES_MAX * 28 + KIB <= COMMAND_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX + ENTRY_PAYLOAD_BYTES_MAX + MIB <= WAL_GROUP_BYTES_MAX);
const _: () = assert!(PARTITIONS_PER_TOPIC_MAX as usize * 4 + KIB <= CHECKPOINT_CHUNK_BYTES);
// A flush of the smallest batches (a header and one record) fits one segment; one partition's
// share of a directory page (24 bytes per producer, 32 per batch it remembers, 36 per page of its
// index) fits the page; block table, directory root and tombstones fit the footer.
const _: () = assert!(FLUSH_BYTES <= (SEGMENT_BATCHES_MAX * (61 + RECORD_BYTES_MIN)) as u64);
const _: () = assert!(
    PRODUCERS_PER_PARTITION_MAX * (24 + PRODUCER_WINDOW * 32)
        + SEGMENT_BATCHES_MAX.div_ceil(INDEX_PAGE_BYTES_MAX / (62 + INDEX_EXTENSION_BYTES_MAX))
            * 36
        + DIRECTORY_PAGE_BYTES
        <= DIRECTORY_PAGE_BYTES_MAX
);
const _: () = assert!(
    SEGMENT_BLOCKS_MAX * 24 + SEGMENT_RANGES_MAX * 32 + TOPICS_MAX * 16 + KIB
        <= SEGMENT_FOOTER_BYTES_MAX
);
// A swap of the most segments with the most ranges fits in one command; a round of the collector
// is over before the next, and before what it saw first may go.
const _: () = assert!(SEGMENT_RANGES_MAX * 28 + SWAP_SEGMENTS_MAX * 64 + KIB <= COMMAND_BYTES_MAX);
const _: () = assert!(COLLECT_ROUND_MAX.as_secs() < COLLECT_PERIOD.as_secs());
const _: () = assert!(COLLECT_ROUND_MAX.as_secs() < READ_GRACE.as_secs());
// However many partitions there are, joining neighbours makes room for one more range.
const _: () = assert!(RETENTION_RANGES_MAX > PARTITIONS_MAX as usize);
// Elections come and go within the patience; a leader that is silent is left while there is time to
// find the next within three elections, and not before a handover is over.
const _: () = assert!(HEAD_PATIENCE.as_millis() >= 5 * ELECTION_MAX.as_millis());
const _: () = assert!(HEAD_APPEND_STALL_MAX.as_millis() < 3 * ELECTION_MAX.as_millis());
const _: () = assert!(
    HEAD_APPEND_STALL_MAX.as_millis() >= FSYNC_HANDOVER.as_millis() + ELECTION_MAX.as_millis()
);
const _: () = assert!(HEAD_REST_MAX.as_millis() < ELECTION_MIN.as_millis());
// A follower that catches up has time to answer, and one that is silent leaves most of the patience.
const _: () = assert!(HEAD_FOLLOWER_BEHIND_MAX.as_millis() < HEAD_FOLLOWER_CALL_MAX.as_millis());
const _: () = assert!(HEAD_FOLLOWER_CALL_MAX.as_millis() * 4 <= HEAD_PATIENCE.as_millis());
// What an agent has under way of a shard, the stream of a node takes in; a batch of any size fits.
const _: () = assert!(HEAD_APPEND_BYTES_MAX >= BATCH_BYTES_MAX);
// Every answer fits a message: batches and the one more that passes the bound, or a whole entry of
// the smallest; a page and a topic of the most partitions (80 bytes each).
const _: () = assert!(
    HEAD_READ_BYTES_MAX + BATCH_BYTES_MAX + HEAD_BATCH_FRAMING_BYTES + KIB
        <= PEER_MESSAGE_BYTES_MAX
);
const _: () = assert!(
    ENTRY_PAYLOAD_BYTES_MAX + ENTRY_BATCHES_MAX * HEAD_BATCH_FRAMING_BYTES + KIB
        <= PEER_MESSAGE_BYTES_MAX
);
const _: () = assert!(
    HEAD_LISTING_BYTES_MAX + PARTITIONS_PER_TOPIC_MAX as usize * 80 + MIB <= PEER_MESSAGE_BYTES_MAX
);
const _: () = assert!(HEAD_PIECE_BYTES + KIB <= PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX + KIB <= PEER_MESSAGE_BYTES_MAX);
