//! What serves clients: bucket, cache, engine, agent, over any head.

use std::sync::Arc;
use std::time::Duration;

use esker_agent::{Agent, Cluster, Traffic, WalStand};
use esker_cache::BlockCache;
use esker_env::{Env, Listener};
use esker_log::{Ended, Engine, Head, Owner};
use esker_object::Store;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{ServeError, settings};
use crate::config::Config;

/// How long calls under way may go on once the server was asked to stop.
const STOP_CALLS: Duration = Duration::from_millis(800);
/// How long the cache may take to be written.
const STOP_CACHE: Duration = Duration::from_millis(800);

/// An agent that serves.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) engine: Engine,
    pub(super) traffic: Traffic,
    pub(super) address: String,
    running: JoinHandle<Ended>,
    serving: JoinHandle<Result<(), String>>,
    stop: oneshot::Sender<()>,
}

impl Front {
    /// Serves on `listener` what `head` and `store` have, which are `owner`'s. `wal` is the log of the
    /// node in this process.
    pub(super) async fn start(
        env: &Env,
        config: &Config,
        listener: Box<dyn Listener>,
        (head, store): (Arc<dyn Head>, Store),
        owner: Owner,
        wal: Option<WalStand>,
    ) -> Result<Self, ServeError> {
        let blocks = BlockCache::open(settings::cache(config), &*env.files).await?;
        let engine = Engine::new(head, store, env.clone(), blocks, settings::engine(config));
        let running = engine.clone();
        let running = tokio::spawn(async move { running.run(owner).await });
        let cluster = Cluster {
            id: owner.cluster,
            incarnation: owner.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wal,
        };
        let agent = Agent::new(engine.clone(), env.clone(), cluster);
        let agent = agent.with_budgets(settings::budgets(config));
        let traffic = agent.traffic().clone();
        let address = listener.address().to_owned();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async move {
                // Dropped or told: either way it is time.
                let _ = stopped.await;
            };
            let served = agent.serve(listener, stopped).await;
            served.map_err(|error| error.to_string())
        });
        Ok(Self {
            engine,
            traffic,
            address,
            running,
            serving,
            stop,
        })
    }

    /// Waits until it has died, and says of what.
    pub(super) async fn died(&mut self) -> ServeError {
        tokio::select! {
            biased;
            ended = &mut self.running => match ended {
                Ok(ended) => ServeError::Engine(ended),
                Err(panicked) => ServeError::Died(panicked.to_string()),
            },
            served = &mut self.serving => match served {
                Ok(Ok(())) => self.listener("nobody asked it to".to_owned()),
                Ok(Err(what)) => self.listener(what),
                Err(panicked) => ServeError::Died(panicked.to_string()),
            },
        }
    }

    fn listener(&self, what: String) -> ServeError {
        let address = self.address.clone();
        ServeError::Listener { address, what }
    }

    /// Takes no new calls, and lets those under way end for a moment. What is left is ended by
    /// [`Closing::close`].
    pub(super) async fn stop_calls(self) -> Closing {
        // It may have ended by itself.
        let _ = self.stop.send(());
        let mut serving = self.serving;
        if tokio::time::timeout(STOP_CALLS, &mut serving)
            .await
            .is_err()
        {
            serving.abort();
        }
        self.running.abort();
        Closing(self.engine)
    }
}

/// An agent that takes no calls any more.
#[derive(Debug)]
pub(super) struct Closing(Engine);

impl Closing {
    pub(super) async fn close(self) {
        if tokio::time::timeout(STOP_CACHE, self.0.close())
            .await
            .is_err()
        {
            tracing::info!("the cache was not written in time; some of it is fetched again");
        }
    }
}
