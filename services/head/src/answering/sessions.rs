//! Whose stream of appends goes on. A caller that has lost a stream begins another, and sends again
//! what has no answer; what the first had read by then, and not proposed, must not come after it.
//!
//! ```text
//!   attempt 1 ─► its handler ── told to end ◄─┐
//!   attempt 2 ─► waits until it has ended ────┘, then reads
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use esker_types::ShardId;
use esker_types::limits::HEAD_SESSIONS_MAX;
use tokio::sync::watch;
use tonic::Status;

use crate::words::Beginning;

/// The attempts of all sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    sessions: BTreeMap<(u128, ShardId), Session>,
    /// Attempts so far, of all.
    begun: u64,
}

#[derive(Debug)]
struct Session {
    attempt: u64,
    /// Which of all attempts it was.
    begun: u64,
    /// Dropped to tell the handler of this attempt to end.
    _goes_on: watch::Sender<()>,
    /// Closed once it has.
    ended: watch::Receiver<()>,
}

/// The right to read a stream of appends. Its handler holds it to its end.
#[derive(Debug)]
pub(super) struct Turn {
    /// Closed once the handler before it has ended.
    before: Option<watch::Receiver<()>>,
    over: watch::Receiver<()>,
    _ended: watch::Sender<()>,
}

impl Sessions {
    /// The turn of a stream that begins.
    ///
    /// # Errors
    /// If the session has a later attempt, or there are too many.
    pub(super) fn begin(
        self: &Arc<Self>,
        shard: ShardId,
        beginning: &Beginning,
    ) -> Result<Turn, Status> {
        let (session, attempt) = (beginning.session, beginning.attempt);
        let mut table = self.0.lock().expect("nothing panics under this lock");
        let known = table.sessions.get(&(session, shard));
        if let Some(known) = known
            && known.attempt >= attempt
        {
            return Err(Status::aborted(format!(
                "attempt {attempt} comes after attempt {} of its session",
                known.attempt
            )));
        }
        if known.is_none() {
            table.make_room()?;
        }
        table.begun += 1;
        let (goes_on, over) = watch::channel(());
        let (ends, ended) = watch::channel(());
        let begun = Session {
            attempt,
            begun: table.begun,
            _goes_on: goes_on,
            ended,
        };
        let before = table.sessions.insert((session, shard), begun);
        Ok(Turn {
            // Dropping the rest of it tells the handler.
            before: before.map(|before| before.ended),
            over,
            _ended: ends,
        })
    }
}

impl Table {
    /// Forgets the session that began its last attempt first, of those whose handlers have ended.
    fn make_room(&mut self) -> Result<(), Status> {
        if self.sessions.len() < HEAD_SESSIONS_MAX {
            return Ok(());
        }
        let idle = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_idle());
        let oldest = idle.min_by_key(|(_, session)| session.begun);
        let Some((&oldest, _)) = oldest else {
            return Err(Status::resource_exhausted(format!(
                "{HEAD_SESSIONS_MAX} callers append here already, which is the limit"
            )));
        };
        self.sessions.remove(&oldest);
        Ok(())
    }
}

impl Session {
    fn is_idle(&self) -> bool {
        self.ended.has_changed().is_err()
    }
}

impl Turn {
    /// Waits until every earlier attempt has ended. Each waits so for the one before it, told to end or
    /// not, and therefore must not be dropped meanwhile.
    pub(super) async fn come(&mut self) {
        if let Some(mut before) = self.before.take() {
            closed(&mut before).await;
        }
    }

    /// Waits until a later attempt has begun.
    pub(super) async fn over(&mut self) {
        closed(&mut self.over).await;
    }
}

/// Nothing is ever sent.
async fn closed(signal: &mut watch::Receiver<()>) {
    while signal.changed().await.is_ok() {}
}
