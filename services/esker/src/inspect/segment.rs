//! A segment: who wrote it, what it holds, and whether every byte of it is right.

use std::io::{self, BufWriter, Write as _};
use std::ops::Range;

use bytes::Bytes;
use esker_object::Key;
use esker_record::codec::Decoder;
use esker_record::{Batch, Scratch};
use esker_segment::{
    BlockNumber, Depth, Entry, Opened, Opening, Partition, Segment, Verified, Verifier,
};
use esker_types::SegmentId;
use esker_types::limits::MIB;
use serde_json::{Map, Value, json};

use super::Found;
use super::source::Source;
use crate::failure::{Failure, of_stdout};
use crate::object;
use crate::screen;
use crate::shell::{Shell, json as line};

/// Bytes of the trailer, at the end of every segment; its first field says where the footer is.
const TRAILER_BYTES: usize = 48;
/// Decompressed bytes whose memory is kept for the next batch.
const SCRATCH_BYTES: usize = 2 * MIB;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// List every batch, too
    #[arg(long, conflicts_with = "records")]
    batches: bool,
    /// List every record, too
    #[arg(long)]
    records: bool,
}

pub(super) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let name = &args.source.name;
    let bytes = args.source.read("segment", shell).await?;
    let damaged = |error: esker_segment::Error| Failure::new(format!("{name}: {error}"));
    let segment = open(name, &bytes).map_err(damaged)?;
    let mut look = Look {
        bytes: &bytes,
        segment: &segment,
        lister: Lister::new(args, shell),
        decoder: Decoder::new(),
        block: None,
        partitions: Vec::new(),
        index_pages: 0,
        found: Found::default(),
    };
    look.walk()
        .and_then(|()| look.lister.out.flush())
        .map_err(|error| of_stdout(&error))?;
    let Look {
        partitions,
        index_pages,
        mut found,
        ..
    } = look;
    let mut verified = None;
    match verify(&segment, &bytes) {
        Ok(all) => verified = Some(all),
        // What the walk has met already needs no second word.
        Err(_) if found.count > 0 => {}
        Err(error) => found.add(error.to_string()),
    }
    let answer = answer(
        &segment,
        &partitions,
        index_pages,
        verified.as_ref(),
        &found,
    );
    shell.answer(&answer, || {
        text(
            &segment,
            &partitions,
            index_pages,
            verified.as_ref(),
            &found,
        )
    })?;
    found.outcome(name)
}

/// Opens it under the id that its name gives, or that it gives itself if the name gives none.
fn open(name: &str, bytes: &Bytes) -> Result<Segment, esker_segment::Error> {
    let id = id_of_name(name).or_else(|| id_of_footer(bytes));
    let mut opening = Opening::new(id.unwrap_or(SegmentId(0)), bytes.len() as u64)?;
    loop {
        let wants = opening.wants();
        match opening.take(part(bytes, wants))? {
            Opened::Done(segment, _) => return Ok(segment),
            Opened::More(more) => opening = more,
        }
    }
}

fn id_of_name(name: &str) -> Option<SegmentId> {
    match Key::parse(name) {
        Some(
            Key::FlushedSegment { id, .. }
            | Key::GatheredSegment { id, .. }
            | Key::PartitionSegment { id, .. },
        ) => Some(id),
        _ => {
            let file = name.rsplit('/').next()?.strip_suffix(".seg")?;
            SegmentId::parse(file.rsplit('-').next()?)
        }
    }
}

fn id_of_footer(bytes: &Bytes) -> Option<SegmentId> {
    let trailer = bytes.len().checked_sub(TRAILER_BYTES)?;
    let footer = u64::from_le_bytes(*bytes.get(trailer..)?.first_chunk()?);
    let footer = usize::try_from(footer).ok()?;
    let id = bytes.get(footer..)?.first_chunk()?;
    Some(SegmentId(u128::from_be_bytes(*id)))
}

/// The bytes of `range`, or as many of them as there are: what is short is refused as damage.
fn part(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let at = |position: u64| {
        usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(bytes.len())
    };
    bytes.slice(at(range.start)..at(range.end).max(at(range.start)))
}

fn verify(segment: &Segment, bytes: &Bytes) -> Result<Verified, esker_segment::Error> {
    let mut verifier = Verifier::new(segment.clone(), Depth::Content);
    while let Some(range) = verifier.wants() {
        verifier.take(part(bytes, range))?;
    }
    Ok(verifier.finish())
}

/// Goes through all parts, on beyond whatever is damaged.
struct Look<'a> {
    bytes: &'a Bytes,
    segment: &'a Segment,
    lister: Lister,
    decoder: Decoder,
    /// The block that was opened last; without bytes if it is damaged.
    block: Option<(BlockNumber, Option<Bytes>)>,
    partitions: Vec<Partition>,
    index_pages: usize,
    found: Found,
}

impl Look<'_> {
    /// Fails only where stdout does.
    fn walk(&mut self) -> io::Result<()> {
        for page in self.segment.directory_pages() {
            let bytes = part(self.bytes, page.position..page.end());
            match self.segment.decode_directory_page(page, &bytes) {
                Ok(page) => {
                    for partition in page.into_partitions() {
                        self.partition(&partition)?;
                        self.partitions.push(partition);
                    }
                }
                Err(error) => self.found.add(error.to_string()),
            }
        }
        Ok(())
    }

    fn partition(&mut self, partition: &Partition) -> io::Result<()> {
        for page in &partition.pages {
            self.index_pages += 1;
            let bytes = part(self.bytes, page.position..page.end());
            match self.segment.decode_index_page(partition, page, &bytes) {
                Ok(page) => {
                    for entry in page.into_entries() {
                        self.entry(partition, &entry)?;
                    }
                }
                Err(error) => self.found.add(error.to_string()),
            }
        }
        Ok(())
    }

    fn entry(&mut self, partition: &Partition, entry: &Entry) -> io::Result<()> {
        let Some(block) = self.block(partition, entry) else {
            return Ok(());
        };
        match self.segment.batch(partition.id, entry, &block) {
            Ok(batch) => self.lister.list(partition, entry, &batch),
            Err(error) => {
                self.found.add(error.to_string());
                Ok(())
            }
        }
    }

    fn block(&mut self, partition: &Partition, entry: &Entry) -> Option<Bytes> {
        let number = entry.block;
        if let Some((open, bytes)) = &self.block
            && *open == number
        {
            return bytes.clone();
        }
        let span = self.segment.block_span(number..=number).unwrap_or(0..0);
        let stored = part(self.bytes, span);
        let opened = self.segment.decode_block(number, stored, &mut self.decoder);
        let bytes = match opened {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let error = error.touching(partition.id, entry.range());
                self.found.add(error.to_string());
                None
            }
        };
        self.block = Some((number, bytes.clone()));
        bytes
    }
}

/// Lists batches or records as they come, a line each.
struct Lister {
    batches: bool,
    records: bool,
    json: bool,
    scratch: Scratch,
    out: BufWriter<io::Stdout>,
}

impl Lister {
    fn new(args: &Args, shell: &Shell) -> Self {
        Self {
            batches: args.batches,
            records: args.records,
            json: shell.json,
            scratch: Scratch::new(SCRATCH_BYTES),
            out: BufWriter::new(screen::out()),
        }
    }

    fn list(&mut self, partition: &Partition, entry: &Entry, batch: &Batch) -> io::Result<()> {
        if self.batches {
            self.batch(partition, entry, batch)
        } else if self.records {
            self.of_batch(partition, batch)
        } else {
            Ok(())
        }
    }

    fn batch(&mut self, partition: &Partition, entry: &Entry, batch: &Batch) -> io::Result<()> {
        let (topic, number) = (&partition.topic, partition.id.index.0);
        let header = batch.header();
        let codec = header.attributes.codec();
        if self.json {
            let producer = header.producer.map(|stamp| {
                json!({
                    "id": stamp.id.as_u64(),
                    "epoch": stamp.epoch.as_i16(),
                    "sequence": stamp.sequence.as_i32(),
                })
            });
            let object = json!({
                "topic": topic.as_str(), "partition": number,
                "start": entry.offset.get(), "end": entry.range().end().get(),
                "block": entry.block.0, "position": entry.position, "bytes": entry.bytes,
                "codec": codec.to_string(), "max_timestamp_ms": entry.max_timestamp.0,
                "append_time_ms": entry.append_time.0, "hash": entry.hash.to_string(),
                "producer": producer,
            });
            return writeln!(self.out, "{}", line(&object));
        }
        let range = entry.range();
        write!(
            self.out,
            "{topic}/{number} {range}: {} bytes, {codec}, at byte {} of {}, hash {}",
            entry.bytes, entry.position, entry.block, entry.hash
        )?;
        match header.producer {
            Some(stamp) => writeln!(
                self.out,
                ", producer {} epoch {} sequence {}",
                stamp.id,
                stamp.epoch,
                stamp.sequence.as_i32()
            ),
            None => writeln!(self.out),
        }
    }

    /// Records that do not decode are the verification's to report.
    fn of_batch(&mut self, partition: &Partition, batch: &Batch) -> io::Result<()> {
        let (topic, number) = (&partition.topic, partition.id.index.0);
        let Ok(plain) = self.scratch.decode(batch) else {
            return Ok(());
        };
        for record in plain.records().map_while(Result::ok) {
            if self.json {
                let mut printed = Vec::new();
                object::print(number, &record, &mut printed);
                let object: Result<Map<String, Value>, _> = serde_json::from_slice(&printed);
                let mut object = object.expect("an object was printed");
                object.insert("topic".into(), topic.as_str().into());
                writeln!(self.out, "{}", line(&object))?;
                continue;
            }
            let (offset, time) = (record.offset.get(), record.timestamp.0);
            write!(self.out, "{topic}/{number} {offset} @{time}")?;
            if let Some(key) = record.key {
                write!(self.out, " \"{}\":", key.escape_ascii())?;
            }
            match record.value {
                Some(value) => writeln!(self.out, " \"{}\"", value.escape_ascii())?,
                None => writeln!(self.out, " null")?,
            }
        }
        Ok(())
    }
}

fn answer(
    segment: &Segment,
    partitions: &[Partition],
    index_pages: usize,
    verified: Option<&Verified>,
    found: &Found,
) -> Value {
    let origin = segment.origin();
    let blocks = segment.blocks().iter().map(|block| {
        json!({
            "position": block.position, "stored_bytes": block.stored_bytes,
            "raw_bytes": block.raw_bytes, "codec": block.codec.to_string(),
        })
    });
    let tombstones = segment.tombstones().iter();
    let tombstones = tombstones.map(|ended| ended.topic.as_u64());
    json!({
        "segment": segment.id().to_string(),
        "incarnation": origin.incarnation.get(),
        "shard": origin.shard.0,
        "raft_from": origin.raft.from.0,
        "raft_to": origin.raft.to.0,
        "zstd_level": origin.zstd_level.get(),
        "length": segment.length(),
        "checksum": verified.map(|all| format!("{:016x}", all.checksum.0)),
        "batches": segment.batches(),
        "records": segment.records(),
        "blocks": blocks.collect::<Vec<_>>(),
        "directory_pages": segment.directory_pages().len(),
        "index_pages": index_pages,
        "ended_topics": tombstones.collect::<Vec<_>>(),
        "partitions": partitions.iter().map(partition_object).collect::<Vec<_>>(),
        "damage": found.shown,
        "damage_total": found.count,
    })
}

fn partition_object(partition: &Partition) -> Value {
    let producers = partition.producers.iter().map(|producer| {
        json!({
            "id": producer.id.as_u64(), "epoch": producer.epoch.as_i16(),
            "last_append_ms": producer.last_append.0, "marks": producer.marks.len(),
        })
    });
    let epochs = partition.epochs.iter();
    let epochs = epochs.map(|one| json!({ "epoch": one.epoch.0, "start": one.start.get() }));
    let pages = partition.pages.iter().map(|page| {
        json!({
            "position": page.position, "bytes": page.bytes, "first": page.first.get(),
            "max_timestamp_ms": page.max_timestamp.0,
        })
    });
    json!({
        "topic": partition.topic.as_str(),
        "topic_id": partition.id.topic.as_u64(),
        "partition": partition.id.index.0,
        "start": partition.range.start().get(),
        "end": partition.range.end().get(),
        "log_start": partition.log_start.get(),
        "fencing_token": partition.fencing.map(|token| token.0),
        "epochs": epochs.collect::<Vec<_>>(),
        "producers": producers.collect::<Vec<_>>(),
        "index_pages": pages.collect::<Vec<_>>(),
    })
}

fn text(
    segment: &Segment,
    partitions: &[Partition],
    index_pages: usize,
    verified: Option<&Verified>,
    found: &Found,
) -> String {
    let origin = segment.origin();
    let blocks = segment.blocks();
    let raw: u64 = blocks.iter().map(|block| u64::from(block.raw_bytes)).sum();
    let stored: u64 = blocks
        .iter()
        .map(|block| u64::from(block.stored_bytes))
        .sum();
    let mut text = format!(
        "segment {}, {} bytes\n\
         incarnation {}, {}, raft {}, {}, {}\n\
         {}: {} raw, {} stored, zstd level {}; {} directory pages, {index_pages} index pages\n",
        segment.id(),
        segment.length(),
        origin.incarnation.get(),
        origin.shard,
        origin.raft,
        screen::count(segment.batches(), "batch"),
        screen::count(segment.records(), "record"),
        screen::count(blocks.len() as u64, "block"),
        screen::bytes(raw),
        screen::bytes(stored),
        origin.zstd_level.get(),
        segment.directory_pages().len(),
    );
    if !segment.tombstones().is_empty() {
        let ended = segment.tombstones().iter();
        let ended: Vec<_> = ended.map(|one| one.topic.to_string()).collect();
        text.push_str(&format!("topics that had ended: {}\n", ended.join(", ")));
    }
    let rows = partitions.iter().map(|partition| {
        vec![
            partition.topic.to_string(),
            partition.id.index.0.to_string(),
            partition.range.start().to_string(),
            partition.range.end().to_string(),
            partition.log_start.to_string(),
            partition.pages.len().to_string(),
            partition.producers.len().to_string(),
        ]
    });
    let heads = [
        "TOPIC",
        "PARTITION",
        "START",
        "END",
        "LOG START",
        "INDEX PAGES",
        "PRODUCERS",
    ];
    text.push('\n');
    text.push_str(&screen::table(&heads, &rows.collect::<Vec<_>>()));
    text.push('\n');
    text.push_str(&found.text());
    if let Some(all) = verified.filter(|_| found.count == 0) {
        let checksum = all.checksum.0;
        text.push_str(&format!(
            "every part is right; checksum of the object {checksum:016x}\n"
        ));
    }
    text
}
