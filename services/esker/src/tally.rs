//! What went through, partition by partition: records, bytes, where to go on, and a hash of the
//! values.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What went through. Two of equal records and hashes saw the same values in the same order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    shares: BTreeMap<u32, Share>,
}

/// What went through of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share {
    pub(crate) records: u64,
    /// Of values.
    pub(crate) bytes: u64,
    /// Behind the last record.
    pub(crate) next_offset: u64,
    /// Of the values, each with a newline behind it. Hashing costs, so only who tells the hash
    /// has it done.
    hash: Option<Sha256>,
}

impl Share {
    /// Nothing yet.
    pub(crate) fn new(hashing: bool) -> Self {
        Self {
            hash: hashing.then(Sha256::new),
            ..Self::default()
        }
    }

    /// The next value. None at all is hashed as an empty one.
    pub(crate) fn add(&mut self, value: &[u8]) {
        self.records += 1;
        self.bytes += value.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(value);
            hash.update(b"\n");
        }
    }

    /// The next values, `text` being all of them, each with a newline behind it.
    pub(crate) fn add_text(&mut self, records: u64, text: &[u8]) {
        self.records += records;
        self.bytes += text.len() as u64 - records;
        if let Some(hash) = &mut self.hash {
            hash.update(text);
        }
    }

    /// Whether `other` saw the same values in the same order.
    fn same(&self, other: &Self) -> bool {
        let seen = |share: &Self| {
            let hash = share.hash.clone().map(Digest::finalize);
            (share.records, share.bytes, hash)
        };
        seen(self) == seen(other)
    }
}

impl Tally {
    /// What went through of `partition`, by now.
    pub(crate) fn set(&mut self, partition: u32, share: Share) {
        self.shares.insert(partition, share);
    }

    /// Of all partitions.
    pub(crate) fn records(&self) -> u64 {
        self.shares.values().map(|share| share.records).sum()
    }

    /// Of all partitions.
    pub(crate) fn bytes(&self) -> u64 {
        self.shares.values().map(|share| share.bytes).sum()
    }

    /// The first partition that did not see the same values in the same order in `other`, and
    /// both shares; both are of the same partitions, and hashed.
    pub(crate) fn differs<'a>(&'a self, other: &'a Self) -> Option<(u32, &'a Share, &'a Share)> {
        let both = self.shares.iter().zip(other.shares.values());
        let pairs = both.map(|((partition, one), other)| (*partition, one, other));
        let mut differing = pairs.filter(|(_, one, other)| !one.same(other));
        differing.next()
    }

    /// For a person: `1,024 records, 1.2 MiB, 4 partitions`.
    pub(crate) fn text(&self) -> String {
        let count = |count, one| format!("{} {one}{}", grouped(count), plural(count));
        let used = self.shares.values().filter(|share| share.records > 0);
        format!(
            "{}, {}, {}",
            count(self.records(), "record"),
            crate::screen::bytes(self.bytes()),
            count(used.count() as u64, "partition"),
        )
    }

    /// For a program.
    pub(crate) fn object(&self, topic: &str) -> Value {
        let partitions = self.shares.iter().map(|(partition, share)| {
            let mut object = json!({
                "partition": partition,
                "records": share.records,
                "bytes": share.bytes,
                "next_offset": share.next_offset,
            });
            if let Some(hash) = &share.hash {
                object["sha256"] = hexadecimal(&hash.clone().finalize()).into();
            }
            object
        });
        json!({
            "topic": topic,
            "records": self.records(),
            "bytes": self.bytes(),
            "partitions": partitions.collect::<Vec<_>>(),
        })
    }
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// A number with commas between thousands.
fn grouped(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_values_in_another_order_differ() {
        let tally = |values: [&str; 2]| {
            let mut share = Share::new(true);
            values.iter().for_each(|value| share.add(value.as_bytes()));
            let mut tally = Tally::default();
            tally.set(0, Share::new(true));
            tally.set(1, share);
            tally
        };
        let (one, other) = (tally(["a", "b"]), tally(["b", "a"]));
        assert!(one.differs(&tally(["a", "b"])).is_none());
        let (partition, one, other) = one.differs(&other).unwrap();
        assert_eq!((partition, one.records, other.bytes), (1, 2, 2));
    }

    #[test]
    fn values_are_hashed_each_with_its_newline() {
        let mut one_by_one = Share::new(true);
        for value in ["a", "", "b"] {
            one_by_one.add(value.as_bytes());
        }
        let mut at_once = Share::new(true);
        at_once.add_text(1, b"a\n");
        at_once.add_text(2, b"\nb\n");
        for mut share in [one_by_one, at_once] {
            share.next_offset = 7;
            let mut tally = Tally::default();
            tally.set(3, share);
            tally.set(4, Share::new(false));
            let object = tally.object("t");
            let partition = &object["partitions"][0];
            // printf 'a\n\nb\n' | sha256sum
            let hash = "770423513bd0765c18e500000baec91976bcd8267a245437b32572665c6ac370";
            assert_eq!(partition["sha256"], hash);
            let counted = (&partition["records"], &partition["bytes"]);
            assert_eq!(counted, (&3.into(), &2.into()));
            assert_eq!(partition["next_offset"], 7);
            assert!(object["partitions"][1].get("sha256").is_none());
            assert_eq!(tally.text(), "3 records, 2 B, 1 partition");
        }
    }
}
