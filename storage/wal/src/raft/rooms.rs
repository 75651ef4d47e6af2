//! What the peers of a shard say of the room in their WALs: a leader takes no append that no quorum has
//! room for; and whether their logs are whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use esker_types::limits::ELECTION_MAX;
use tokio::time::Instant;

use crate::peers::{AppendReply, PeerError};

/// What each peer said last, and when it last said anything. Clones share it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Rooms(Arc<Mutex<All>>);

/// By node.
type All = BTreeMap<u64, Known>;

/// What is known of one of them.
#[derive(Clone, Copy, Debug)]
struct Known {
    said: Said,
    /// Bytes of room, as of its last answer.
    room: u64,
    answered: Option<Instant>,
    /// It has entries that are damaged, as of its last answer.
    damaged: bool,
}

/// What one of them said.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    rooms: Rooms,
    node: u64,
}

/// What a peer said last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// It has room above its reserve.
    Room,
    /// It has none.
    Full,
    /// It was asked, and gave no answer.
    Nothing,
}

impl Rooms {
    /// Of one peer, to be told.
    pub(crate) fn of(&self, node: u64) -> Room {
        let rooms = self.clone();
        Room { rooms, node }
    }

    /// What a peer said last; `None` before it was asked.
    pub(crate) fn said(&self, node: u64) -> Option<Said> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(&node).map(|known| known.said)
    }

    /// Bytes of room that a peer has said, if it answered the last thing it was asked.
    pub(crate) fn bytes(&self, node: u64) -> Option<u64> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = said.get(&node)?;
        (known.said != Said::Nothing).then_some(known.room)
    }

    /// Whether a peer has said that its log is damaged.
    pub(crate) fn is_damaged(&self, node: u64) -> bool {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(&node).is_some_and(|known| known.damaged)
    }
}

impl Room {
    /// It answered an append, or did not.
    pub(crate) fn heard(&self, reply: &Result<AppendReply, PeerError>) {
        match reply {
            Ok(AppendReply::Matched { room, damaged, .. }) => {
                self.set(*room, *damaged);
            }
            // It says nothing of its room.
            Ok(_) => {}
            Err(_) => self.silent(),
        }
    }

    /// It gave no answer.
    pub(crate) fn silent(&self) {
        let mut said = self.said();
        let nothing = Known {
            said: Said::Nothing,
            room: 0,
            answered: None,
            damaged: false,
        };
        said.entry(self.node).or_insert(nothing).said = Said::Nothing;
    }

    /// It gave no answer in time to what it was asked since `asked_since`: silent, unless it answered
    /// anything else within [`ELECTION_MAX`]. One whose disk is slow is late for every beat, and takes all
    /// that is appended.
    pub(crate) fn late(&self, asked_since: Instant) {
        let answered = self.said().get(&self.node).and_then(|known| known.answered);
        if answered.unwrap_or(asked_since).max(asked_since).elapsed() > ELECTION_MAX {
            self.silent();
        }
    }

    fn set(&self, room: u64, damaged: bool) {
        let known = Known {
            said: if room > 0 { Said::Room } else { Said::Full },
            room,
            answered: Some(Instant::now()),
            damaged,
        };
        self.said().insert(self.node, known);
    }

    fn said(&self) -> MutexGuard<'_, All> {
        self.rooms.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use esker_types::EntryId;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_answers_appends_is_not_silent_however_late_his_beats_are() {
        let (rooms, began) = (Rooms::default(), Instant::now());
        let room = rooms.of(7);
        let matched = Ok(AppendReply::Matched {
            upto: EntryId::default(),
            room: 1,
            damaged: false,
        });
        for _ in 0..20 {
            tokio::time::advance(ELECTION_MAX / 2).await;
            room.heard(&matched);
            room.late(began);
            assert_eq!(rooms.said(7), Some(Said::Room));
            assert_eq!(rooms.bytes(7), Some(1));
        }
        tokio::time::advance(ELECTION_MAX * 2).await;
        room.late(began);
        assert_eq!(rooms.said(7), Some(Said::Nothing));
        assert_eq!(rooms.bytes(7), None, "it may have none by now");
        room.heard(&matched);
        assert_eq!(rooms.said(7), Some(Said::Room));
        // Asked for the first time a moment ago.
        let another = rooms.of(8);
        another.late(Instant::now());
        assert_eq!(rooms.said(8), None);
    }
}
