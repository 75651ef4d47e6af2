//! The start-up probe: exactly what we rely on, asked of the store once, on a key of its own.

use bytes::Bytes;
use esker_types::{Lane, SegmentId};

use crate::error::{Error, Kind};
use crate::keys::{Key, Prefix};
use crate::store::{Cursor, Store};

/// What the probe writes first and what it overwrites it with. Of different length, so that a
/// stale answer shows.
const FIRST: &[u8] = b"esker asks whether this store keeps its word";
const SECOND: &[u8] = b"and whether it forgets what was overwritten";
/// The range that the probe reads.
const RANGE: std::ops::Range<u64> = 6..10;
/// The tail that it reads.
const TAIL: u64 = 4;

const _: () = assert!(FIRST.len() != SECOND.len());

impl Store {
    /// Proves that the store does what we rely on: put, read after write, range, tail, list after
    /// put, overwrite, delete. Leaves nothing behind unless it fails midway.
    ///
    /// # Errors
    /// [`Error::Probe`], which names the step; its kind is that of the failed request, or
    /// [`Kind::Invalid`] if the store answered wrongly.
    pub async fn probe(&self) -> Result<(), Error> {
        let env = self.env();
        let id = SegmentId::from_parts(env.clock.wall().0, env.entropy.next_u128());
        let key = Key::Probe(id);
        self.probe_writes(&key).await?;
        self.probe_listing(&key, true).await?;
        self.put(&key, vec![Bytes::from_static(SECOND)])
            .await
            .map_err(|error| failed("overwrite", &error))?;
        self.probe_whole(&key, "read after overwrite", SECOND)
            .await?;
        self.probe_removal(&key).await
    }

    async fn probe_writes(&self, key: &Key) -> Result<(), Error> {
        // In two parts, as segments are written.
        let (front, back) = FIRST.split_at(5);
        let parts = vec![Bytes::from_static(front), Bytes::from_static(back)];
        self.put(key, parts)
            .await
            .map_err(|error| failed("put", &error))?;
        self.probe_whole(key, "read after write", FIRST).await?;
        let range = self
            .get_range(key, RANGE, Lane::Tail)
            .await
            .map_err(|error| failed("range", &error))?;
        same("range", &range, b"asks")?;
        let tail = self
            .get_tail(key, FIRST.len() as u64, TAIL, Lane::Tail)
            .await
            .map_err(|error| failed("tail", &error))?;
        same("tail", &tail, b"word")
    }

    async fn probe_whole(
        &self,
        key: &Key,
        step: &'static str,
        content: &[u8],
    ) -> Result<(), Error> {
        let length = self.head(key).await.map_err(|error| failed(step, &error))?;
        if length != content.len() as u64 {
            let reason = format!("the object has {length} bytes instead of {}", content.len());
            return Err(wrong(step, reason));
        }
        let body = self
            .get_range(key, 0..length, Lane::Tail)
            .await
            .map_err(|error| failed(step, &error))?;
        same(step, &body, content)
    }

    /// Lists from just before the key, so that other probes' leavings do not matter.
    async fn probe_listing(&self, key: &Key, expected: bool) -> Result<(), Error> {
        let step = if expected {
            "list after put"
        } else {
            "list after delete"
        };
        let before = match key {
            Key::Probe(SegmentId(id)) => {
                Cursor::after(&Key::Probe(SegmentId(id.saturating_sub(1))))
            }
            other => Cursor::after(other),
        };
        let page = self
            .list(Prefix::Probes, Some(&before))
            .await
            .map_err(|error| failed(step, &error))?;
        let listed = page.objects.iter().any(|object| object.key == *key);
        match (listed, expected) {
            (false, true) => Err(wrong(step, "the object is missing from the listing".into())),
            (true, false) => Err(wrong(step, "the object is still in the listing".into())),
            _ => Ok(()),
        }
    }

    async fn probe_removal(&self, key: &Key) -> Result<(), Error> {
        // Twice: removing what is not there must succeed.
        for step in ["delete", "delete again"] {
            for result in self.delete(&[*key]).await {
                result.map_err(|error| failed(step, &error))?;
            }
        }
        match self.head(key).await {
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(failed("head after delete", &error)),
            Ok(_) => {
                return Err(wrong(
                    "head after delete",
                    "the object is still there".into(),
                ));
            }
        }
        self.probe_listing(key, false).await
    }
}

fn failed(step: &'static str, error: &Error) -> Error {
    Error::Probe {
        step,
        reason: error.to_string(),
        kind: error.kind(),
    }
}

fn wrong(step: &'static str, reason: String) -> Error {
    Error::Probe {
        step,
        reason,
        kind: Kind::Invalid,
    }
}

fn same(step: &'static str, got: &[u8], wanted: &[u8]) -> Result<(), Error> {
    if got == wanted {
        return Ok(());
    }
    Err(wrong(
        step,
        "the bytes read are not the bytes written".into(),
    ))
}
