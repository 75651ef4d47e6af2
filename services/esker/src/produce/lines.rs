//! Bytes into lines: a line is the bytes between newlines. CR is kept, a last line without a
//! newline counts, an empty line is an empty line.

use bytes::{Bytes, BytesMut};

/// Bytes that are read into one piece of memory, which the lines cut from it share.
const PIECE_BYTES: usize = 1 << 20;

/// Cuts what is read into lines that share its memory.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Read, and not cut yet.
    buffer: BytesMut,
    /// How much of it holds no newline.
    searched: usize,
}

impl Lines {
    /// Where to read to: `bytes` behind what is there. [`Lines::filled`] says how many came.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.buffer.len();
        if self.buffer.capacity() - start < bytes {
            let mut piece = BytesMut::with_capacity(start + bytes.max(PIECE_BYTES));
            piece.extend_from_slice(&self.buffer);
            self.buffer = piece;
        }
        self.buffer.resize(start + bytes, 0);
        &mut self.buffer[start..]
    }

    /// Of the room asked for, `unused` bytes at the end were not filled.
    pub(super) fn filled(&mut self, unused: usize) {
        let filled = self.buffer.len() - unused;
        self.buffer.truncate(filled);
    }

    /// All whole lines there are.
    pub(super) fn whole(&mut self) -> Cut {
        let new = &self.buffer[self.searched..];
        let Some(last) = memchr::memrchr(b'\n', new) else {
            self.searched = self.buffer.len();
            return Cut::default();
        };
        let end = self.searched + last + 1;
        self.searched = 0;
        Cut {
            text: self.buffer.split_to(end).freeze(),
            at: 0,
        }
    }

    /// What no newline follows: the last line if it is not empty.
    pub(super) fn rest(&mut self) -> Bytes {
        self.searched = 0;
        self.buffer.split().freeze()
    }

    /// Bytes of the line that is not whole yet.
    pub(super) fn rest_bytes(&self) -> usize {
        self.buffer.len()
    }
}

/// Whole lines, without their newlines.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// Ends with a newline, unless it is empty.
    text: Bytes,
    at: usize,
}

impl Iterator for Cut {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let length = memchr::memchr(b'\n', &self.text[self.at..])?;
        let line = self.text.slice(self.at..self.at + length);
        self.at += length + 1;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `text`, read in pieces of `piece` bytes.
    fn lines(text: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece_of in text.chunks(piece) {
            let room = lines.room(piece + 3);
            room[..piece_of.len()].copy_from_slice(piece_of);
            lines.filled(piece + 3 - piece_of.len());
            found.extend(lines.whole().map(|line| line.to_vec()));
        }
        let rest = lines.rest();
        if !rest.is_empty() {
            found.push(rest.to_vec());
        }
        found
    }

    #[test]
    fn lines_are_what_lies_between_newlines() {
        let cases: [(&[u8], &[&[u8]]); 8] = [
            (b"", &[]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"\n", &[b""]),
            (b"\n\n", &[b"", b""]),
            (b"a\r\n\nb", &[b"a\r", b"", b"b"]),
            (b"a\n\xff\0\n", &[b"a", b"\xff\0"]),
            (b"abc\ndef\nghi\n", &[b"abc", b"def", b"ghi"]),
        ];
        for (text, expected) in cases {
            for piece in 1..6 {
                assert_eq!(lines(text, piece), expected, "{text:?} by {piece}");
            }
        }
    }
}
