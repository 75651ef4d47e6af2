//! One flight per key: everybody who asks for a block that is on its way gets that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use esker_types::Lane;
use esker_types::limits::CACHE_LOADS_MAX;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::block::BlockKey;

/// A load under way. It runs as long as anybody polls a clone of it: a caller that goes away
/// cancels it only if it was the last.
pub(crate) type Flight<E> = Shared<BoxFuture<'static, Result<Bytes, E>>>;

/// The flights under way, at most [`CACHE_LOADS_MAX`].
#[derive(Debug)]
pub(crate) struct Flights<E: Clone> {
    state: Arc<Mutex<State<E>>>,
}

#[derive(Debug)]
struct State<E: Clone> {
    under_way: BTreeMap<BlockKey, Entry<E>>,
    next_number: u64,
}

#[derive(Debug)]
struct Entry<E: Clone> {
    number: u64,
    lane: Lane,
    /// Weak, so that the map keeps no flight alive that nobody waits for.
    flight: WeakShared<BoxFuture<'static, Result<Bytes, E>>>,
}

/// What a caller is to do.
pub(crate) enum Boarding<E: Clone> {
    /// Somebody else began this flight, for the lane named.
    Joined(Flight<E>, Lane),
    /// This caller began it.
    Began(Flight<E>),
    /// The block has landed meanwhile.
    Landed(Bytes),
}

/// Takes the entry off the map when the flight ends or is dropped.
struct Landing<E: Clone> {
    state: Arc<Mutex<State<E>>>,
    key: BlockKey,
    number: u64,
}

impl<E: Clone + Send + Sync + 'static> Flights<E> {
    pub(crate) fn new() -> Self {
        let state = State {
            under_way: BTreeMap::new(),
            next_number: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Joins the flight for `key`, or begins one with `load` unless `landed` finds the block.
    /// With too many under way, the flight is this caller's alone.
    pub(crate) fn board(
        &self,
        key: BlockKey,
        lane: Lane,
        landed: impl FnOnce() -> Option<Bytes>,
        load: BoxFuture<'static, Result<Bytes, E>>,
    ) -> Boarding<E> {
        let mut state = self.state.lock().expect("no holder panics");
        if let Some(entry) = state.under_way.get(&key)
            && let Some(flight) = entry.flight.upgrade()
        {
            return Boarding::Joined(flight, entry.lane);
        }
        // A flight puts its block into memory before it leaves the map: whoever finds neither may
        // begin another.
        if let Some(bytes) = landed() {
            return Boarding::Landed(bytes);
        }
        if state.under_way.len() >= CACHE_LOADS_MAX {
            return Boarding::Began(load.shared());
        }
        let number = state.next_number;
        state.next_number += 1;
        let landing = Landing {
            state: Arc::clone(&self.state),
            key,
            number,
        };
        let flight = async move {
            let result = load.await;
            drop(landing);
            result
        };
        let flight = flight.boxed().shared();
        let weak = flight.downgrade();
        let entry = weak.map(|flight| Entry {
            number,
            lane,
            flight,
        });
        state.under_way.extend(entry.map(|entry| (key, entry)));
        Boarding::Began(flight)
    }

    /// How many are under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().expect("no holder panics").under_way.len()
    }
}

impl<E: Clone> Drop for Landing<E> {
    fn drop(&mut self) {
        let mut state = self.state.lock().expect("no holder panics");
        // A later flight may have taken the place of this one, if it was dropped meanwhile.
        if state
            .under_way
            .get(&self.key)
            .is_some_and(|entry| entry.number == self.number)
        {
            state.under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use esker_types::SegmentId;

    use super::*;

    fn key(block: usize) -> BlockKey {
        BlockKey {
            segment: SegmentId(1),
            block: u32::try_from(block).unwrap(),
        }
    }

    fn board(flights: &Flights<()>, block: usize, landed: Option<Bytes>) -> Boarding<()> {
        let load = std::future::pending().boxed();
        flights.board(key(block), Lane::Tail, || landed, load)
    }

    #[test]
    fn a_block_that_landed_meanwhile_is_not_loaded_again() {
        let flights = Flights::new();
        let landed = Some(Bytes::from_static(b"block"));
        assert!(matches!(board(&flights, 0, landed), Boarding::Landed(_)));
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn past_the_limit_a_flight_is_the_callers_alone() {
        let flights = Flights::new();
        let begin = |block| match board(&flights, block, None) {
            Boarding::Began(flight) => flight,
            _ => panic!("nobody else flies block {block}"),
        };
        let mut under_way: Vec<_> = (0..CACHE_LOADS_MAX).map(begin).collect();
        let alone = begin(CACHE_LOADS_MAX);
        let alone_again = begin(CACHE_LOADS_MAX);
        assert_eq!(flights.len(), CACHE_LOADS_MAX);
        assert!(matches!(board(&flights, 0, None), Boarding::Joined(..)));
        under_way.pop();
        drop((alone, alone_again));
        assert_eq!(flights.len(), CACHE_LOADS_MAX - 1);
    }
}
