//! What ails the ways between hosts: bytes that do not arrive until the way is healed, or late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// From a host to a host.
pub(super) type Way = (String, String);

/// How a way is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Ailment {
    /// Nothing arrives; what is sent waits, as it would be sent again and again.
    pub(super) severed: bool,
    /// What arrives does so this much later.
    pub(super) delay: Duration,
}

/// The ways that are not as they should be.
#[derive(Default, Debug)]
pub(super) struct Ways {
    ailing: BTreeMap<Way, Ailment>,
    /// Hosts to and from which nothing goes.
    paused: BTreeSet<String>,
}

impl Ways {
    pub(super) fn of(&self, from: &str, to: &str) -> Ailment {
        if self.ailing.is_empty() && self.paused.is_empty() {
            return Ailment::default();
        }
        let way = (from.to_owned(), to.to_owned());
        let ailment = self.ailing.get(&way).copied().unwrap_or_default();
        let paused = from != to && [from, to].iter().any(|host| self.paused.contains(*host));
        Ailment {
            severed: ailment.severed || paused,
            ..ailment
        }
    }

    pub(super) fn pause(&mut self, host: &str) {
        self.paused.insert(host.to_owned());
    }

    pub(super) fn change(&mut self, from: &str, to: &str, change: impl FnOnce(&mut Ailment)) {
        let way = (from.to_owned(), to.to_owned());
        let ailment = self.ailing.entry(way.clone()).or_default();
        change(ailment);
        if *ailment == Ailment::default() {
            self.ailing.remove(&way);
        }
    }

    pub(super) fn heal(&mut self) {
        self.ailing.clear();
        self.paused.clear();
    }
}

/// The host of an address.
pub(super) fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}
