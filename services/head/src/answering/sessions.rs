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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const SHARD: ShardId = ShardId(1);

    fn attempt(session: u128, attempt: u64) -> Beginning {
        Beginning {
            session,
            attempt,
            seen: None,
        }
    }

    #[test]
    fn a_turn_comes_when_all_before_it_have_ended() {
        let sessions = Arc::new(Sessions::default());
        let mut first = sessions.begin(SHARD, &attempt(1, 1)).unwrap();
        assert!(first.come().now_or_never().is_some(), "there is none");
        assert!(first.over().now_or_never().is_none());
        let mut second = sessions.begin(SHARD, &attempt(1, 5)).unwrap();
        assert!(first.over().now_or_never().is_some(), "it is told to end");
        let mut third = sessions.begin(SHARD, &attempt(1, 6)).unwrap();
        assert!(second.over().now_or_never().is_some());
        for before in [1, 5, 6] {
            let refused = sessions.begin(SHARD, &attempt(1, before));
            assert_eq!(refused.unwrap_err().code(), tonic::Code::Aborted);
        }
        // Another shard's, and another caller's, are their own.
        sessions.begin(ShardId(2), &attempt(1, 1)).unwrap();
        sessions.begin(SHARD, &attempt(2, 1)).unwrap();
        let coming = third.come();
        futures::pin_mut!(coming);
        assert!(coming.as_mut().now_or_never().is_none());
        {
            let coming = second.come();
            futures::pin_mut!(coming);
            assert!(coming.as_mut().now_or_never().is_none());
            drop(first);
            assert!(coming.as_mut().now_or_never().is_some());
        }
        assert!(
            coming.as_mut().now_or_never().is_none(),
            "the second goes on"
        );
        drop(second);
        assert!(coming.now_or_never().is_some());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_is_idle() {
        let sessions = Arc::new(Sessions::default());
        let mut turns = Vec::new();
        for session in 0..HEAD_SESSIONS_MAX {
            turns.push(sessions.begin(SHARD, &attempt(session as u128, 1)).unwrap());
        }
        let refused = sessions.begin(SHARD, &attempt(u128::MAX, 1));
        assert_eq!(refused.unwrap_err().code(), tonic::Code::ResourceExhausted);
        // Those that are there go on, and make room when they end.
        turns[3] = sessions.begin(SHARD, &attempt(3, 2)).unwrap();
        turns.drain(3..5);
        let _new = sessions.begin(SHARD, &attempt(u128::MAX, 1)).unwrap();
        let table = sessions.0.lock().unwrap();
        assert_eq!(table.sessions.len(), HEAD_SESSIONS_MAX);
        assert!(!table.sessions.contains_key(&(4, SHARD)), "it began before");
        assert!(table.sessions.contains_key(&(3, SHARD)));
    }
}
