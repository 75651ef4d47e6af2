//! What keeps a client from getting on at present: the last refusal or break of all that it goes on
//! trying. Who shows a person why nothing happens asks for it; nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::Error;

/// Those of one client: at most one of each producer, reader and call.
#[derive(Clone, Default, Debug)]
pub(crate) struct Setbacks(Arc<Mutex<Met>>);

#[derive(Default, Debug)]
struct Met {
    tries: u64,
    by: BTreeMap<u64, Error>,
}

/// That of one producer, reader or call. Over when it is dropped.
#[derive(Debug)]
pub(crate) struct Setback {
    all: Setbacks,
    by: u64,
    /// Spares the lock where all goes well.
    is_met: bool,
}

impl Setbacks {
    /// For something that is tried again.
    pub(crate) fn one(&self) -> Setback {
        let mut met = self.lock();
        met.tries += 1;
        Setback {
            all: self.clone(),
            by: met.tries,
            is_met: false,
        }
    }

    /// Of what began last, if several are met.
    pub(crate) fn last(&self) -> Option<Error> {
        self.lock().by.values().next_back().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Met> {
        self.0.lock().expect("no holder panics")
    }
}

impl Setback {
    /// It failed, and is tried again.
    pub(crate) fn met(&mut self, error: &Error) {
        self.is_met = true;
        self.all.lock().by.insert(self.by, error.clone());
    }

    /// It goes on.
    pub(crate) fn over(&mut self) {
        if self.is_met {
            self.is_met = false;
            self.all.lock().by.remove(&self.by);
        }
    }
}

impl Drop for Setback {
    fn drop(&mut self) {
        self.over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setback_lasts_until_it_is_over_and_no_other_ends_it() {
        let all = Setbacks::default();
        let (mut first, mut second) = (all.one(), all.one());
        first.met(&Error::invalid("first"));
        second.over();
        assert_eq!(all.last(), Some(Error::invalid("first")));
        second.met(&Error::invalid("second"));
        assert_eq!(all.last(), Some(Error::invalid("second")));
        drop(second);
        assert_eq!(all.last(), Some(Error::invalid("first")));
        first.over();
        assert_eq!(all.last(), None);
    }
}
