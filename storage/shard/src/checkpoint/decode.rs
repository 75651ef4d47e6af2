//! Bytes into a state, every one of them checked: what comes out keeps every invariant, or
//! nothing comes out.

mod catalog; // records of the catalog
mod data; // records of a data shard

use std::ops::Range;

use esker_types::limits::DATA_SHARDS_MAX;
use esker_types::{Monotone, ShardId};
use imbl::OrdMap;

use super::encode::section_crc;
use super::{
    Decoded, FORMAT, HEADER_BYTES, MAGIC, PAYLOAD_BYTES_MAX, SECTION_CRC_BYTES,
    SECTION_HEADER_BYTES, Scope, Tag,
};
use crate::catalog::Catalog;
use crate::codec::Reader;
use crate::data::Data;
use crate::error::Error;
use crate::invariants;
use crate::level::Level;
use crate::state::{Body, State};

const WHAT: &str = "a checkpoint";
/// Bytes of the shard's last fields: time, applied term, applied index.
const MOVING_BYTES: usize = 3 * size_of::<u64>();

/// Reads a checkpoint back.
///
/// # Errors
/// [`Error`], for anything that `encode` does not write. [`Error::Level`] asks for a newer build.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let mut sections = Sections::open(bytes)?;
    let (state, scope) = match sections.next()? {
        Some((Tag::Shard, mut from)) => {
            let shard = read_shard(&mut from)?;
            from.finish()?;
            shard
        }
        _ => {
            return Err(Error::Sections {
                what: "the shard does not come first",
            });
        }
    };
    let mut builder = Builder {
        state,
        scope,
        records: 1,
    };
    let mut last = Tag::Shard;
    while let Some((tag, mut from)) = sections.next()? {
        if tag < last || tag == last && matches!(tag, Tag::Shard | Tag::Marks) {
            return Err(Error::Sections {
                what: "a section comes out of turn",
            });
        }
        if last < Tag::Marks && tag != Tag::Marks {
            return Err(Error::Sections {
                what: "the marks do not come second",
            });
        }
        last = tag;
        if tag == Tag::End {
            builder.check_records(from.u64()?)?;
            from.finish()?;
            sections.finish()?;
            invariants::check(&builder.state)?;
            return Ok(Decoded {
                state: builder.state,
                scope: builder.scope,
            });
        }
        while from.left() > 0 {
            builder.record(tag, &mut from)?;
        }
    }
    Err(Error::Sections {
        what: "the end is missing",
    })
}

/// Where shard time and applied entry stand, with the checksum that covers them, at the beginning
/// of a checkpoint.
pub(super) fn moving_part(bytes: &[u8]) -> Result<Range<usize>, Error> {
    let mut sections = Sections::open(bytes)?;
    match sections.next()? {
        Some((Tag::Shard, payload)) if payload.left() >= MOVING_BYTES => {
            let end = sections.at;
            Ok(end - SECTION_CRC_BYTES - MOVING_BYTES..end)
        }
        _ => Err(Error::Sections {
            what: "the shard does not come first",
        }),
    }
}

/// Takes sections off the bytes, one after the other, checked.
struct Sections<'a> {
    /// Everything; a section's CRC covers what precedes it if it is the first.
    bytes: &'a [u8],
    at: usize,
    /// Where the next section's CRC begins to cover.
    covered_from: usize,
    number: u32,
}

impl<'a> Sections<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut from = Reader::new(WHAT, bytes);
        if from.bytes(MAGIC.len())? != MAGIC {
            return Err(Error::Sections {
                what: "it does not begin as a checkpoint",
            });
        }
        let format = from.u16()?;
        if format != FORMAT {
            return Err(Error::Unknown {
                what: "a checkpoint's format",
                value: format.into(),
            });
        }
        Ok(Self {
            bytes,
            at: HEADER_BYTES,
            covered_from: 0,
            number: 0,
        })
    }

    fn next(&mut self) -> Result<Option<(Tag, Reader<'a>)>, Error> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let mut from = Reader::new(WHAT, rest);
        let (tag, number, length) = (from.u8()?, from.u32()?, from.u32()?);
        let length = usize::try_from(length).expect("32 bits fit a usize here");
        if length > PAYLOAD_BYTES_MAX {
            return Err(Error::TooMany {
                what: "payload bytes of a section",
                value: length as u64,
                limit: PAYLOAD_BYTES_MAX as u64,
            });
        }
        let payload = from.bytes(length)?;
        let crc = from.u32()?;
        let covered_to = self.at + SECTION_HEADER_BYTES + length;
        if crc != section_crc(&self.bytes[self.covered_from..covered_to]) {
            return Err(Error::Checksum {
                section: self.number,
            });
        }
        if number != self.number {
            return Err(Error::Sections {
                what: "a section is missing",
            });
        }
        let tag = Tag::from_number(tag).ok_or(Error::Unknown {
            what: "a section's tag",
            value: tag.into(),
        })?;
        self.at = covered_to + SECTION_CRC_BYTES;
        self.covered_from = self.at;
        self.number += 1;
        Ok(Some((tag, Reader::new(WHAT, payload))))
    }

    fn finish(&self) -> Result<(), Error> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            bytes => Err(Error::Trailing { what: WHAT, bytes }),
        }
    }
}

fn read_shard(from: &mut Reader<'_>) -> Result<(State, Scope), Error> {
    let number = from.u16()?;
    let level = Level::new(number).ok_or(Error::Level {
        what: WHAT,
        found: number,
        newest: Level::NEWEST.get(),
    })?;
    let scope = from.u8()?;
    let scope = Scope::from_number(scope).ok_or(Error::Unknown {
        what: "a checkpoint's scope",
        value: scope.into(),
    })?;
    let shard = ShardId(from.u32()?);
    if shard.0 > DATA_SHARDS_MAX {
        return Err(Error::Unknown {
            what: "a shard id",
            value: shard.0.into(),
        });
    }
    let incarnation = from.incarnation()?;
    let epoch_base = from.epoch()?;
    let time = Monotone::new(from.time()?);
    let applied = from.entry()?;
    let body = if shard.carries_data() {
        Body::Data(Data::default())
    } else {
        Body::Catalog(Catalog::new(0))
    };
    Ok((
        State {
            shard,
            incarnation,
            level,
            time,
            applied,
            epoch_base,
            body,
        },
        scope,
    ))
}

/// The state as far as it has been read.
struct Builder {
    state: State,
    scope: Scope,
    records: u64,
}

impl Builder {
    fn record(&mut self, tag: Tag, from: &mut Reader<'_>) -> Result<(), Error> {
        self.records += 1;
        match &mut self.state.body {
            Body::Data(data) => data::read(data, tag, self.scope, from),
            Body::Catalog(catalog) => match tag {
                Tag::Marks => catalog::read_marks(catalog, from),
                Tag::Catalog => catalog::read_topic(catalog, from),
                _ => Err(Error::Sections {
                    what: "a section of a data shard in the catalog",
                }),
            },
        }
    }

    fn check_records(&self, written: u64) -> Result<(), Error> {
        if self.records != written {
            return Err(Error::Sections {
                what: "records are missing",
            });
        }
        Ok(())
    }
}

/// Adds a record above all others of its kind. How many there may be is decided by apply; here the
/// bytes bound it.
fn push<K: Ord + Clone, V: Clone>(
    map: &mut OrdMap<K, V>,
    key: K,
    value: V,
    what: &'static str,
) -> Result<(), Error> {
    if map.get_max().is_some_and(|(last, _)| *last >= key) {
        return Err(Error::Order { what });
    }
    map.insert(key, value);
    Ok(())
}
