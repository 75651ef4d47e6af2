//! A network in memory. Addresses are any text of the form `host:port`.
//!
//! Who connects does so from a host, by [`SimNetwork::at`]; between two hosts each way can be
//! severed, so that nothing arrives until it is healed, or slow.

mod end; // of a connection
mod ways; // between hosts, and what ails them

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use end::{End, Side};
use rustix::io::Errno;
use tokio::io::duplex;
use tokio::sync::{Notify, mpsc};
use ways::{Ailment, Way, Ways, host};

use crate::network::{Connection, Listener, Network, Pending, told};

/// Bytes on their way in one direction of a connection; a writer waits when it is full.
pub const PIPE_BYTES: usize = 64 << 10;
/// Connections of a listener that wait to be accepted; one more is refused.
pub const BACKLOG_MAX: usize = 128;
/// The first of the ports that stand for port 0.
const EPHEMERAL_PORT: u32 = 49_152;

/// A network of its own, in memory. Clones are the same network. Only who holds one can meet.
#[derive(Clone)]
pub struct SimNetwork {
    state: Arc<Mutex<State>>,
    /// Who connects by this clone.
    host: Arc<str>,
    /// Rung whenever a way is healed.
    healed: Arc<Notify>,
}

struct State {
    places: BTreeMap<String, Place>,
    refusing: BTreeSet<String>,
    starving: BTreeMap<String, u64>,
    ways: Ways,
    ports: u32,
    connections: u64,
}

/// A taken address.
struct Place {
    backlog: mpsc::Sender<Connection>,
    pairs: Vec<Pair>,
}

/// Both ends of a connection.
type Pair = [Weak<Mutex<Side>>; 2];

impl SimNetwork {
    /// A network without listeners.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "reads better where a world is made"
    )]
    pub fn new() -> Self {
        let state = State {
            places: BTreeMap::new(),
            refusing: BTreeSet::new(),
            starving: BTreeMap::new(),
            ways: Ways::default(),
            ports: EPHEMERAL_PORT,
            connections: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            host: "".into(),
            healed: Arc::default(),
        }
    }

    /// The same network as `host` sees it: connections are made from there.
    #[must_use]
    pub fn at(&self, host: &str) -> Self {
        Self {
            host: host.into(),
            ..self.clone()
        }
    }

    /// Nothing that one host sends arrives at the other, from now on and until the way is healed:
    /// neither the bytes of connections that are there, which wait, nor new connections.
    pub fn sever(&self, from: &str, to: &str) {
        let severed = |way: &mut Ailment| way.severed = true;
        self.state().ways.change(from, to, severed);
    }

    /// What one host sends arrives at the other this much later, a piece of at most [`PIPE_BYTES`]
    /// after the other.
    pub fn delay(&self, from: &str, to: &str, delay: Duration) {
        let slow = |way: &mut Ailment| way.delay = delay;
        self.state().ways.change(from, to, slow);
    }

    /// Heals one way.
    pub fn heal(&self, from: &str, to: &str) {
        let mut state = self.state();
        state.ways.change(from, to, |way| *way = Ailment::default());
        self.look_again(state);
    }

    /// Heals all ways.
    pub fn heal_all(&self) {
        let mut state = self.state();
        state.ways.heal();
        self.look_again(state);
    }

    fn look_again(&self, state: MutexGuard<'_, State>) {
        let pairs = state.places.values().flat_map(|place| &place.pairs);
        let ends: Vec<_> = pairs.flatten().filter_map(Weak::upgrade).collect();
        // Each looks at the ways when it is read.
        drop(state);
        ends.iter().for_each(|end| lock(end).wake());
        self.healed.notify_waiters();
    }

    fn way(&self, (from, to): &Way) -> Ailment {
        self.state().ways.of(from, to)
    }

    /// Waits until a connection can be made: what is sent for it, and the answer, arrive.
    async fn passable(&self, address: &str) {
        let far = host(address);
        loop {
            let healed = self.healed.notified();
            let mut delay = Duration::ZERO;
            let severed = {
                let ways = &self.state().ways;
                let both = [ways.of(&self.host, far), ways.of(far, &self.host)];
                both.iter().for_each(|way| delay += way.delay);
                both.iter().any(|way| way.severed)
            };
            if !severed {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                return;
            }
            healed.await;
        }
    }

    /// Ends all connections that were made to `address`: bytes on their way are lost, both sides
    /// see `ConnectionReset`. Says how many there were.
    pub fn cut(&self, address: &str) -> usize {
        let pairs = match self.state().places.get_mut(address) {
            Some(place) => std::mem::take(&mut place.pairs),
            None => return 0,
        };
        pairs.iter().filter(|pair| cut(pair)).count()
    }

    /// Ends one of the connections that are there, the same way: the `number`th, counted round and round in the
    /// order of addresses, then of age. False if there is none.
    pub fn break_one(&self, number: u64) -> bool {
        let pair = {
            let state = self.state();
            let pairs = state.places.values().flat_map(|place| &place.pairs);
            let there: Vec<_> = pairs.filter(|pair| is_there(pair)).collect();
            let place = number.checked_rem(there.len() as u64);
            place.and_then(|place| there.get(usize::try_from(place).ok()?).copied().cloned())
        };
        pair.is_some_and(|pair| cut(&pair))
    }

    /// Holds everything that is on its way to `host`, and from it, until [`SimNetwork::heal_all`] lets it go: to
    /// the others it is as one that stands still. Its own timers run on, and so does its disk.
    pub fn pause(&self, host: &str) {
        self.state().ways.pause(host);
    }

    /// Whether connections to `address` are refused from now on, although somebody may listen.
    /// Those that are there stay.
    pub fn refuse(&self, address: &str, refuse: bool) {
        let mut state = self.state();
        if refuse {
            state.refusing.insert(address.to_owned());
        } else {
            state.refusing.remove(address);
        }
    }

    /// How often whoever listens at `address` is told from now on that there is no descriptor left,
    /// before it may accept again.
    pub fn starve(&self, address: &str, times: u64) {
        self.state().starving.insert(address.to_owned(), times);
    }

    /// Times that [`SimNetwork::starve`] has not told yet.
    #[must_use]
    pub fn starves(&self, address: &str) -> u64 {
        self.state().starving.get(address).copied().unwrap_or(0)
    }

    /// Connections made so far, to any address.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state().connections
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn take(&self, address: &str) -> io::Result<(String, mpsc::Receiver<Connection>)> {
        let mut state = self.state();
        let taken = match address.strip_suffix(":0") {
            Some(host) => {
                state.ports += 1;
                format!("{host}:{}", state.ports)
            }
            None => address.to_owned(),
        };
        if state.places.contains_key(&taken) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let (backlog, waiting) = mpsc::channel(BACKLOG_MAX);
        let pairs = Vec::new();
        state.places.insert(taken.clone(), Place { backlog, pairs });
        Ok((taken, waiting))
    }

    fn reach(&self, address: &str) -> io::Result<Connection> {
        let mut state = self.state();
        if state.refusing.contains(address) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        state.connections += 1;
        let name = format!("sim:{}", state.connections);
        let Some(place) = state.places.get_mut(address) else {
            return Err(ErrorKind::ConnectionRefused.into());
        };
        let (near, far) = duplex(PIPE_BYTES);
        let hosts = (self.host.to_string(), host(address).to_owned());
        let back = (hosts.1.clone(), hosts.0.clone());
        let near = End::new(self.clone(), back, near);
        let far = End::new(self.clone(), hosts, far);
        place.pairs.retain(is_there);
        place
            .pairs
            .push([&near, &far].map(|end| Arc::downgrade(&end.0)));
        match place.backlog.try_send(Connection::new(far, name)) {
            Ok(()) => Ok(Connection::new(near, address)),
            Err(_) => Err(ErrorKind::ConnectionRefused.into()),
        }
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimNetwork")
            .field("listeners", &state.places.keys())
            .field("connections", &state.connections)
            .finish_non_exhaustive()
    }
}

impl Network for SimNetwork {
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Listener>> {
        Box::pin(async move {
            let (taken, waiting) = self
                .take(address)
                .map_err(|error| told(&error, "listen on", address))?;
            let listener: Box<dyn Listener> = Box::new(Taken {
                network: self.clone(),
                address: taken,
                waiting,
            });
            Ok(listener)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Connection> {
        Box::pin(async move {
            self.passable(address).await;
            self.reach(address)
                .map_err(|error| told(&error, "connect to", address))
        })
    }
}

#[derive(Debug)]
struct Taken {
    network: SimNetwork,
    address: String,
    waiting: mpsc::Receiver<Connection>,
}

impl Listener for Taken {
    fn address(&self) -> &str {
        &self.address
    }

    fn accept(&mut self) -> Pending<'_, Connection> {
        Box::pin(async move {
            if let Some(times) = self.network.state().starving.get_mut(&self.address)
                && *times > 0
            {
                *times -= 1;
                return Err(Errno::MFILE.into());
            }
            let next = self.waiting.recv().await;
            Ok(next.expect("the network keeps the sender as long as the listener lives"))
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.network.state().places.remove(&self.address);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no holder panics")
}

/// Whether somebody still has an end of it.
fn is_there(pair: &Pair) -> bool {
    pair.iter().any(|end| end.strong_count() > 0)
}

/// Ends a connection. Whether there was something to end.
fn cut(pair: &Pair) -> bool {
    let ends = pair.iter().filter_map(Weak::upgrade);
    ends.filter(|end| lock(end).cut()).count() > 0
}
