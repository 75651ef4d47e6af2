//! Histories as files: one event a line, in JSON.
//!
//! ```json
//! {"op":0,"at":12,"step":{"invoke":{"session":1,"stream":0,"call":{"append":{"producer":7,"sequence":0,"values":["00112233445566aa"]}}}}}
//! {"op":0,"at":80,"step":{"ok":{"append":{"base":0,"count":1}}}}
//! {"op":1,"at":95,"step":{"invoke":{"session":1,"stream":0,"call":{"check_tail":{"mode":"linearizable"}}}}}
//! {"op":1,"at":99,"step":"unknown"}
//! ```

use std::io::{BufRead, Read, Write};

use crate::error::Error;
use crate::event::Event;
use crate::history::History;
use crate::limits::LINE_BYTES_MAX;

/// Writes `event` as one line.
///
/// # Errors
/// [`Error::Io`] if `out` fails.
pub fn write_event(out: &mut impl Write, event: &Event) -> Result<(), Error> {
    serde_json::to_writer(&mut *out, event).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Reads a whole history, at most [`LINE_BYTES_MAX`] a line.
///
/// A last line without its newline is what a driver that was killed leaves behind. It is dropped,
/// which makes its call one without an answer.
///
/// # Errors
/// Names the line that is too long, no event, or does not fit.
pub fn read_history(input: &mut impl BufRead) -> Result<History, Error> {
    let mut history = History::default();
    let mut line = Vec::new();
    let line_limit = LINE_BYTES_MAX as u64 + 1;
    for number in 1.. {
        line.clear();
        input
            .by_ref()
            .take(line_limit)
            .read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            if line.len() > LINE_BYTES_MAX {
                return Err(Error::LineTooLong { number });
            }
            break;
        }
        let event =
            serde_json::from_slice(&line).map_err(|source| Error::Line { number, source })?;
        history.push(event).map_err(|source| Error::Event {
            number,
            source: Box::new(source),
        })?;
    }
    Ok(history)
}
