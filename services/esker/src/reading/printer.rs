//! Records as text, in large pieces.

use super::Piece;
use crate::object;
use crate::tally::Share;

/// Text that is gathered before it is written.
pub(crate) const TEXT_BYTES: usize = 256 << 10;

/// How records are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// The value and a newline.
    Values,
    /// A JSON object a line.
    Objects,
}

/// Records as text.
#[derive(Debug)]
pub(crate) struct Printer {
    form: Form,
    text: Vec<u8>,
    /// Records that may still be printed.
    left: u64,
}

impl Printer {
    /// Prints `limit` records at most.
    pub(crate) fn new(form: Form, limit: Option<u64>) -> Self {
        Self {
            form,
            text: Vec::new(),
            left: limit.unwrap_or(u64::MAX),
        }
    }

    /// Prints `piece` of `partition`, whose `share` grows by it.
    pub(crate) fn print(&mut self, partition: u32, piece: &Piece, share: &mut Share) {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX);
        let count = count.min(piece.count);
        let records = piece.records().take(count);
        match self.form {
            Form::Values => {
                let start = self.text.len();
                for record in records {
                    self.text
                        .extend_from_slice(record.value.unwrap_or_default());
                    self.text.push(b'\n');
                }
                share.add_text(count as u64, &self.text[start..]);
            }
            Form::Objects => {
                for record in records {
                    object::print(partition, &record, &mut self.text);
                    share.add(record.value.unwrap_or_default());
                }
            }
        }
        self.left -= count as u64;
        share.next_offset = piece.offset_behind(count);
    }

    /// Whether the limit is reached.
    pub(crate) const fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Whether there is enough to be worth writing.
    pub(crate) const fn is_full(&self) -> bool {
        self.text.len() >= TEXT_BYTES
    }

    /// What is to be written; [`Printer::written`] afterwards.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// It is written.
    pub(crate) fn written(&mut self) {
        self.text.clear();
    }

    /// What is to be written, to be taken elsewhere.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }
}
