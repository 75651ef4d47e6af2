//! What the peers of a shard say of the room in their WALs: a leader takes no append that no quorum has
//! room for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::peers::{AppendReply, PeerError};

/// What each peer said last. Clones share it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Rooms(Arc<Mutex<BTreeMap<u64, Said>>>);

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
        said.get(&node).copied()
    }
}

impl Room {
    /// It answered an append, or did not.
    pub(crate) fn heard(&self, reply: &Result<AppendReply, PeerError>) {
        match reply {
            Ok(AppendReply::Matched { room: 0, .. }) => self.set(Said::Full),
            Ok(AppendReply::Matched { .. }) => self.set(Said::Room),
            // It says nothing of its room.
            Ok(_) => {}
            Err(_) => self.silent(),
        }
    }

    /// It gave no answer.
    pub(crate) fn silent(&self) {
        self.set(Said::Nothing);
    }

    fn set(&self, now: Said) {
        let mut said = self.rooms.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(self.node, now);
    }
}
