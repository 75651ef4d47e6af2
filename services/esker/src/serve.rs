//! A server, composed by its roles. The only place where all parts meet.
//!
//! ```text
//!   alone:   Config ─► Place ─► bucket, identity, claim ─► Node ─► Front
//!   wal:     Config ─► Place ─► Member: adopted ─► Node, raft with the others
//!   agent:   Config ─► Place ─► search: which cluster ─► bucket, claim ─► head over gRPC ─► Front
//!   both:    a member and an agent beside it, which finds its cluster as any agent does
//! ```
//! It ends in one of two ways: asked to, within two seconds; or because a part of it died, at once.

mod error; // why not
mod place; // data directory, addresses
mod bucket; // the bucket, and whose it is
mod keeping; // the WAL node of this process, running
pub(crate) mod member; // one of several WAL nodes
mod reaching; // how nodes are reached
mod search; // which cluster an agent is of
mod front; // what serves clients
mod settings; // what each part is told
mod check; // what a start would do, told without one

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use esker_agent::WalStand;
use esker_client::v1;
use esker_env::{Env, Listener};
use esker_head::Calling;
use esker_log::{Head, Owner};
use esker_object::{Counters, Store};
use esker_types::ClusterId;
use esker_types::limits::ACCEPT_REST;
use esker_wal::Alone;
use esker_walnode::adoption::Standing;
use esker_walnode::{Directory, Node};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

pub(crate) use bucket::open_bucket;
pub(crate) use check::check;
pub(crate) use error::ServeError;
pub(crate) use settings::cache_directory;

use crate::config::Config;
use crate::observe::{Doors, Figures, Log, Stand, observe};
use bucket::{claimed, owner, remove_unfinished, still_ours};
use front::Front;
use keeping::Keeping;
use member::{Member, Opened};
use place::Place;
pub(crate) use reaching::{NoReach, Reaching};
use search::search;

/// How long a start waits to learn which topics there are, to say what to type next.
const TOPIC_LOOK: Duration = Duration::from_millis(500);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    wal: Option<Keeping>,
    peer: Option<Peer>,
    front: Option<Front>,
    cluster: Option<ClusterId>,
    /// Of an agent, for its cache: a node has it for its log.
    _directory: Option<Directory>,
    stand: watch::Sender<Stand>,
    /// Says how far a WAL node has come.
    watching: Option<AbortHandle>,
    observing: JoinHandle<io::Error>,
    metrics: String,
    doors: Doors,
}

/// One of several WAL nodes, for a person to read.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// How far it has come.
    pub(crate) standing: Standing,
    /// Where it is reached, as `host:port`.
    pub(crate) address: String,
}

impl Server {
    /// Starts everything that `config` asks for. Returns once appends are taken; where only a WAL node
    /// is asked for, once it can be reached.
    pub(crate) async fn start(
        env: &Env,
        config: &Config,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, ServeError> {
        // The cheap things that may be wrong come first.
        let mut place = Place::take(env, config).await?;
        let listener = place.metrics.take().expect("it was just made");
        let metrics = listener.address().to_owned();
        let (stand, standing) = watch::channel(Stand::Starting("it begins".into()));
        let observing = tokio::spawn(observe(listener, env.clone(), standing));
        settings::Memory::of(config).tell();
        let mut server = Self {
            wal: None,
            peer: None,
            front: None,
            cluster: None,
            _directory: None,
            stand,
            watching: None,
            observing,
            metrics,
            doors: place.doors.clone(),
        };
        match config.is_alone() {
            true => server.alone(env, config, environment, place).await?,
            false => server.part(env, config, environment, place).await?,
        }
        Ok(server)
    }

    /// A cluster of one, which founds itself.
    async fn alone(
        &mut self,
        env: &Env,
        config: &Config,
        environment: BTreeMap<String, String>,
        place: Place,
    ) -> Result<(), ServeError> {
        let directory = place.directory.expect("a WAL node has one");
        let listener = place.public.expect("an agent has one");
        self.starting("asking the bucket");
        let store = open_bucket(env, config, environment)?;
        let (identity, seen) = claimed(env, config, &directory, &store).await?;
        tell_shards(config, identity.data_shards);
        let owner = owner(&identity);
        if seen {
            remove_unfinished(&store, owner).await;
        }
        self.starting("reading the log");
        let (options, peers) = (settings::node(config), Arc::new(Alone));
        let mut node = Node::start(env, directory, &identity, options, peers).await?;
        node.lead_alone().await?;
        let log = Log::of(&node, &config.data_dir);
        let (head, wal) = (node.head(), wal_stand(&log, config));
        self.wal = Some(Keeping::alone(node));
        let front = Front::start(env, config, listener, (head, store), owner, Some(wal)).await?;
        self.serves(front, owner, Some(log));
        Ok(())
    }

    /// A part of a cluster of several processes.
    async fn part(
        &mut self,
        env: &Env,
        config: &Config,
        environment: BTreeMap<String, String>,
        mut place: Place,
    ) -> Result<(), ServeError> {
        let mut opened = None;
        let reaching = Reaching::of_a_part(env, config)?;
        self.doors.shown_to_peers.extend(reaching.showing());
        if let Some(listener) = place.peers {
            let directory = place.directory.take().expect("a WAL node has one");
            let (options, reaching) = (settings::node(config), reaching.clone());
            let member = Member::start(env, directory, listener, options, reaching)?;
            self.doors.guard = Some(member.guard.clone());
            opened = Some(member.opened());
            self.peer = Some(Peer {
                standing: member.standing,
                address: member.address,
            });
            self.wal = Some(member.keeping);
        }
        self._directory = place.directory;
        let Some(mut listener) = place.public else {
            if config.object_store.url.is_some() {
                tracing::info!("object_store.url is left alone: a WAL node uses no bucket");
            }
            self.watching = self.watch(opened);
            return Ok(());
        };
        self.starting("looking for the cluster");
        let nodes_by = reaching.env();
        let found = found(&nodes_by, env, config, environment, &self.stand);
        let (owner, head, store) = tokio::select! {
            biased;
            died = died(&mut self.wal) => return Err(died),
            found = found => found?,
            never = turn_away(&mut *listener) => match never {},
        };
        let log = match opened {
            Some(opened) => tokio::select! {
                biased;
                died = died(&mut self.wal) => return Err(died),
                opened = opened => Some(opened.log),
                // A log may take long to read, and a node may wait to be adopted.
                never = turn_away(&mut *listener) => match never {},
            },
            None => None,
        };
        let wal = log.as_ref().map(|log| wal_stand(log, config));
        let front = Front::start(env, config, listener, (head, store), owner, wal).await?;
        self.serves(front, owner, log);
        Ok(())
    }

    fn starting(&self, what: &'static str) {
        self.stand.send_replace(Stand::Starting(what.into()));
    }

    fn serves(&mut self, front: Front, owner: Owner, log: Option<Log>) {
        let figures = Figures::of_agent(
            front.engine.clone(),
            front.traffic.clone(),
            log,
            self.doors.clone(),
        );
        self.stand.send_replace(Stand::Ready(Arc::new(figures)));
        self.cluster = Some(owner.cluster);
        self.front = Some(front);
    }

    /// Says how far a node has come that serves no clients.
    fn watch(
        &self,
        opened: Option<impl Future<Output = Opened> + Send + 'static>,
    ) -> Option<AbortHandle> {
        let (stand, doors, opened) = (self.stand.clone(), self.doors.clone(), opened?);
        let adopted = self.peer.as_ref().and_then(|of| of.standing.identity());
        let first = match adopted {
            None => "waits to be adopted: run `esker cluster init` once all WAL nodes run",
            Some(_) => "reading the log",
        };
        self.starting(first);
        let watching = tokio::spawn(async move {
            let opened = opened.await;
            let what = "adopted, and waits for the cluster to begin: if it lasts, run `esker cluster \
                        init` again";
            stand.send_replace(Stand::Starting(what.into()));
            opened.begun().await;
            let figures = Figures::of_node(opened.log, doors);
            stand.send_replace(Stand::Ready(Arc::new(figures)));
        });
        Some(watching.abort_handle())
    }

    /// Where the public API is, as `host:port`, if there is one.
    pub(crate) fn address(&self) -> Option<&str> {
        self.front.as_ref().map(|front| front.address.as_str())
    }

    /// Where metrics and health are, as `host:port`.
    pub(crate) fn metrics(&self) -> &str {
        &self.metrics
    }

    /// A topic that there is, the first by name. `None` also where nobody can tell now.
    pub(crate) async fn a_topic(&self) -> Option<String> {
        let listing = self.front.as_ref()?.engine.topics();
        let listing = listing.list(None, 1);
        let (topics, _) = tokio::time::timeout(TOPIC_LOOK, listing).await.ok()?.ok()?;
        topics.first().map(|topic| topic.name.to_string())
    }

    /// Whose clients it serves.
    pub(crate) const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The WAL node of this process, if it is one of several.
    pub(crate) const fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// What was asked of the bucket since the start.
    pub(crate) fn bucket_counters(&self) -> Counters {
        let front = self.front.as_ref();
        front.map_or_else(Counters::default, |front| front.engine.store().counters())
    }

    /// Serves until `asked` is ready, and then stops in an orderly way.
    ///
    /// # Errors
    /// [`ServeError`] if a part of it died: the process must end then.
    pub(crate) async fn run(mut self, asked: impl Future<Output = ()>) -> Result<(), ServeError> {
        let served = async {
            match &mut self.front {
                Some(front) => front.died().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            died = died(&mut self.wal) => Err(died),
            died = served => Err(died),
            broken = &mut self.observing => {
                let what = broken.map_or_else(|died| died.to_string(), |error| error.to_string());
                Err(ServeError::Listener { address: self.metrics.clone(), what })
            }
            () = asked => {
                self.close().await;
                tracing::info!("stopped");
                Ok(())
            }
        }
    }

    /// Stops taking calls, lets those under way end for a moment, and leaves the node so that the
    /// next start has little to do. What is not flushed stays in the WAL.
    pub(crate) async fn close(self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
        self.stand.send_replace(Stand::Stopping);
        let front = match self.front {
            Some(front) => Some(front.stop_calls().await),
            None => None,
        };
        self.observing.abort();
        let wal = async {
            if let Some(wal) = self.wal {
                wal.close().await;
            }
        };
        let front = async {
            if let Some(front) = front {
                front.close().await;
            }
        };
        tokio::join!(wal, front);
    }
}

/// Waits until `wal` has died; for ever if there is none.
async fn died(wal: &mut Option<Keeping>) -> ServeError {
    match wal {
        Some(wal) => wal.died().await,
        None => std::future::pending().await,
    }
}

/// Ends every connection as soon as it is made, so that clients hear at once that nobody serves yet.
async fn turn_away(listener: &mut dyn Listener) -> Infallible {
    loop {
        if listener.accept().await.is_err() {
            // If it is broken for good, who serves it hears of that.
            tokio::time::sleep(ACCEPT_REST).await;
        }
    }
}

/// What an agent of a cluster of several goes by: whose it is, where its head is, and its bucket. Nodes
/// are reached by `nodes_by`.
async fn found(
    nodes_by: &Env,
    env: &Env,
    config: &Config,
    environment: BTreeMap<String, String>,
    stand: &watch::Sender<Stand>,
) -> Result<(Owner, Arc<dyn Head>, Store), ServeError> {
    let store = open_bucket(env, config, environment)?;
    let nodes = config.cluster.nodes.iter().map(ToString::to_string);
    let nodes: Vec<_> = nodes.collect();
    let of = search(nodes_by, &nodes, stand).await?;
    tell_shards(config, of.data_shards);
    let owner = Owner {
        cluster: of.cluster,
        incarnation: of.incarnation,
    };
    stand.send_replace(Stand::Starting("asking the bucket".into()));
    still_ours(&store, owner).await?;
    let head = Calling::new(nodes_by, of.cluster, of.data_shards, nodes);
    Ok((owner, Arc::new(head), store))
}

/// Who says another number of shards than there are should not believe that it was heard.
fn tell_shards(config: &Config, founded: u32) {
    let said = config.cluster.data_shards;
    if config.cluster.is_said && said != founded {
        tracing::warn!(
            "cluster.data_shards is {said} in the configuration, and this cluster was founded with \
             {founded}: it keeps {founded}"
        );
    }
}

fn wal_stand(log: &Log, config: &Config) -> WalStand {
    let (wal, disk_bytes_max) = (log.wal(), config.wal.disk.0);
    let log = log.clone();
    let stand = move || {
        let stats = wal.stats();
        v1::WalStatus {
            disk_bytes_max,
            disk_bytes: (stats.files + stats.spares) * wal.file_bytes(),
            room_bytes: wal.room(),
            files: u32::try_from(stats.files).unwrap_or(u32::MAX),
            spares: u32::try_from(stats.spares).unwrap_or(u32::MAX),
        }
    };
    WalStand::new(stand, move |shard| log.leads(shard))
}
