//! What an entry carries: a small head that says what to do, and the payload beside it.
//!
//! On disk: `head length u32 │ head │ payload`. The head is opaque here; the payload is a list of
//! record batches when it comes from a producer, and one run of bytes when it comes from a file.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::room::Promise;

/// The content of an entry. Clones share the bytes. Two are equal if their bytes are.
#[derive(Clone)]
pub struct Body {
    /// Its length as `u32`, then the head itself.
    framed_head: Bytes,
    payload: Vec<Bytes>,
    payload_bytes: usize,
    /// Room on disk that was taken for it, until it is queued for it.
    promise: Option<Arc<Promise>>,
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        (&self.framed_head, &self.payload) == (&other.framed_head, &other.payload)
    }
}

impl Eq for Body {}

/// What an entry takes in memory beside its bytes: this, its place in the books, and what the allocator adds.
/// Of small entries it is the most.
pub(crate) const BESIDE_BYTES: usize = 256;
/// Bytes of the head's length.
const LENGTH_BYTES: usize = 4;

impl Body {
    /// A body of `head` (copied: it is small) and `payload` (shared).
    #[must_use]
    pub fn new(head: &[u8], payload: Vec<Bytes>) -> Self {
        let mut framed_head = BytesMut::with_capacity(LENGTH_BYTES + head.len());
        framed_head.put_u32_le(u32::try_from(head.len()).expect("a head is far below 4 GiB"));
        framed_head.put_slice(head);
        let payload_bytes = payload.iter().map(Bytes::len).sum();
        Self {
            framed_head: framed_head.freeze(),
            payload,
            payload_bytes,
            promise: None,
        }
    }

    /// What stands for a body whose bytes are lost: who has the entry needs nothing more, nobody else takes it.
    /// No entry is stored without a head.
    pub(crate) fn lost() -> Self {
        Self::new(&[], Vec::new())
    }

    /// Whether it only stands for one.
    pub(crate) fn is_lost(&self) -> bool {
        self.framed_head.len() == LENGTH_BYTES
    }

    /// The body that `bytes` hold; `None` if they hold none.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let head_bytes = (&bytes[..]).try_get_u32_le().ok()? as usize;
        if head_bytes > bytes.len() - LENGTH_BYTES {
            return None;
        }
        let framed_head = bytes.split_to(LENGTH_BYTES + head_bytes);
        let payload_bytes = bytes.len();
        let payload = if bytes.is_empty() {
            Vec::new()
        } else {
            vec![bytes]
        };
        Some(Self {
            framed_head,
            payload,
            payload_bytes,
            promise: None,
        })
    }

    /// The same, with the room that was taken for it: it is given back if the body is never queued.
    pub(crate) fn promised(self, promise: Promise) -> Self {
        let promise = Some(Arc::new(promise));
        Self { promise, ..self }
    }

    /// Takes the room that was taken for it.
    pub(crate) fn hold(&mut self, promise: Promise) {
        self.promise = Some(Arc::new(promise));
    }

    pub(crate) fn take_promise(&mut self) -> Option<Arc<Promise>> {
        self.promise.take()
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> Bytes {
        self.framed_head.slice(LENGTH_BYTES..)
    }

    /// The payload, in the parts it came in.
    #[must_use]
    pub fn payload(&self) -> &[Bytes] {
        &self.payload
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// `length` bytes of the payload from `at`, wherever its parts begin and end: shared if they
    /// lie in one part, as they do for a batch. `None` past the end.
    #[must_use]
    pub fn slice(&self, mut at: usize, length: usize) -> Option<Bytes> {
        if at.checked_add(length)? > self.payload_bytes {
            return None;
        }
        if length == 0 {
            return Some(Bytes::new());
        }
        let mut parts = self.payload.iter();
        let first = loop {
            let part = parts.next()?;
            if at < part.len() {
                break part;
            }
            at -= part.len();
        };
        if at + length <= first.len() {
            return Some(first.slice(at..at + length));
        }
        let mut joined = BytesMut::with_capacity(length);
        joined.extend_from_slice(&first[at..]);
        for part in parts {
            let wanted = (length - joined.len()).min(part.len());
            joined.extend_from_slice(&part[..wanted]);
        }
        Some(joined.freeze())
    }

    /// As [`Body::slice`], each of `places`. Where they are less than half of a payload that was read in one
    /// part, they are copied: who keeps them is counted by them, and does not keep the rest.
    #[must_use]
    pub fn slices(&self, places: &[(usize, usize)]) -> Option<Vec<Bytes>> {
        let wanted: usize = places.iter().map(|(_, length)| *length).sum();
        let apart = self.payload.len() == 1 && wanted < self.payload_bytes / 2;
        let slices = places.iter().map(|(at, length)| {
            let slice = self.slice(*at, *length)?;
            Some(match apart {
                true => Bytes::copy_from_slice(&slice),
                false => slice,
            })
        });
        slices.collect()
    }

    /// All of it, as a frame carries it.
    pub(crate) fn into_parts(self) -> Vec<Bytes> {
        let mut parts = Vec::with_capacity(1 + self.payload.len());
        parts.push(self.framed_head);
        parts.extend(self.payload);
        parts
    }

    /// Its bytes, as they are written.
    pub(crate) fn weight(&self) -> usize {
        self.framed_head.len() + self.payload_bytes
    }

    /// Bytes that it takes in memory, about.
    pub(crate) fn memory(&self) -> usize {
        self.weight() + BESIDE_BYTES
    }
}

/// Sizes only: payload never reaches a log line.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Body({} + {} bytes)",
            self.head().len(),
            self.payload_bytes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(texts: &[&'static str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect()
    }

    #[test]
    fn a_body_read_back_equals_the_one_written_part_by_part() {
        let body = Body::new(b"head", parts(&["one", "", "three"]));
        let joined: Vec<u8> = body.clone().into_parts().concat();
        let back = Body::decode(joined.into()).unwrap();
        assert_eq!(
            (back.head(), back.payload_bytes()),
            (Bytes::from_static(b"head"), 8)
        );
        for at in 0..=8 {
            for length in 0..=8 - at {
                let expected = &b"onethree"[at..at + length];
                assert_eq!(back.slice(at, length).unwrap(), expected);
                assert_eq!(body.slice(at, length).unwrap(), expected, "{at} {length}");
            }
            assert_eq!(body.slice(at, 9 - at), None);
        }
    }

    #[test]
    fn few_slices_of_what_was_read_in_one_part_do_not_keep_the_rest() {
        let joined: Vec<u8> = Body::new(b"head", parts(&["12345678"]))
            .into_parts()
            .concat();
        let body = Body::decode(joined.into()).unwrap();
        let whole = body.payload()[0].as_ptr_range();
        let slices = |places: &[(usize, usize)]| body.slices(places).unwrap();
        for (places, shared) in [(&[(1, 2), (4, 1)][..], false), (&[(0, 2), (2, 2)], true)] {
            for (slice, (at, length)) in slices(places).iter().zip(places) {
                assert_eq!(slice, &b"12345678"[*at..at + length]);
                assert_eq!(whole.contains(&slice.as_ptr()), shared, "{places:?}");
            }
        }
        assert_eq!(body.slices(&[(0, 1), (8, 1)]), None);
    }

    #[test]
    fn bytes_that_are_no_body_are_refused() {
        assert!(Body::decode(Bytes::from_static(&[1, 0, 0])).is_none());
        assert!(Body::decode(Bytes::from_static(&[2, 0, 0, 0, 9])).is_none());
        assert!(Body::decode(Bytes::from_static(&[255; 8])).is_none());
        assert!(Body::decode(Bytes::new()).is_none());
    }
}
