//! A network in memory. Addresses are any text of the form `host:port`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

use crate::network::{Connection, Listener, Network, Pending, told};

/// Bytes on their way in one direction of a connection; a writer waits when it is full.
pub const PIPE_BYTES: usize = 64 << 10;
/// Connections of a listener that wait to be accepted; one more is refused.
pub const BACKLOG_MAX: usize = 128;
/// The first of the ports that stand for port 0.
const EPHEMERAL_PORT: u32 = 49_152;

/// A network of its own, in memory. Clones are the same network. Only who holds one can meet.
#[derive(Clone)]
pub struct SimNetwork(Arc<Mutex<State>>);

struct State {
    places: BTreeMap<String, Place>,
    refusing: BTreeSet<String>,
    starving: BTreeMap<String, u64>,
    ports: u32,
    connections: u64,
}

/// A taken address.
struct Place {
    backlog: mpsc::Sender<Connection>,
    ends: Vec<Weak<Mutex<Side>>>,
}

impl SimNetwork {
    /// A network without listeners.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "reads better where a world is made"
    )]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            places: BTreeMap::new(),
            refusing: BTreeSet::new(),
            starving: BTreeMap::new(),
            ports: EPHEMERAL_PORT,
            connections: 0,
        })))
    }

    /// Ends all connections that were made to `address`: bytes on their way are lost, both sides
    /// see `ConnectionReset`. Says how many there were.
    pub fn cut(&self, address: &str) -> usize {
        let ends = match self.state().places.get_mut(address) {
            Some(place) => std::mem::take(&mut place.ends),
            None => return 0,
        };
        // Each connection has two ends.
        ends.iter()
            .filter_map(Weak::upgrade)
            .filter(|end| lock(end).cut())
            .count()
            .div_ceil(2)
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
        lock(&self.0)
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
        let ends = Vec::new();
        state.places.insert(taken.clone(), Place { backlog, ends });
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
        let (near, far) = (End::new(near), End::new(far));
        place.ends.retain(|end| end.strong_count() > 0);
        place
            .ends
            .extend([&near, &far].map(|end| Arc::downgrade(&end.0)));
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

/// One end of a connection, shared with the network, which may cut it.
struct End(Arc<Mutex<Side>>);

struct Side {
    /// `None` once it was cut.
    bytes: Option<DuplexStream>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl End {
    fn new(bytes: DuplexStream) -> Self {
        Self(Arc::new(Mutex::new(Side {
            bytes: Some(bytes),
            reader: None,
            writer: None,
        })))
    }
}

impl Side {
    /// Whether there was something to cut.
    fn cut(&mut self) -> bool {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
        self.bytes.take().is_some()
    }

    fn bytes(&mut self) -> io::Result<Pin<&mut DuplexStream>> {
        let bytes = self.bytes.as_mut().map(Pin::new);
        bytes.ok_or_else(|| ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut side = lock(&self.0);
        side.reader = Some(context.waker().clone());
        side.bytes()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut side = lock(&self.0);
        side.writer = Some(context.waker().clone());
        side.bytes()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).bytes()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).bytes()?.poll_shutdown(context)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no holder panics")
}
