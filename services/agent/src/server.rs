//! The services, composed and served.

use std::future::Future;

use esker_env::{Env, Listener};
use esker_log::Engine;
use esker_proto::v1::admin_server::AdminServer;
use esker_proto::v1::log_server::LogServer;
use esker_proto::{FILE_DESCRIPTOR_SET, transport, tuning};
use esker_types::{ClusterId, Incarnation, Timestamp};
use tokio::sync::watch;

use crate::admin::AdminService;
use crate::budget::Budgets;
use crate::gate::GateLayer;
use crate::log::LogService;
use crate::status::WalStand;
use crate::traffic::Traffic;

/// Which cluster an agent serves.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Version of the binary.
    pub version: String,
    /// The WAL of the node in this process, if there is one.
    pub wal: Option<WalStand>,
}

/// An agent: the public API over an engine. Holds nothing that must survive.
#[derive(Clone, Debug)]
pub struct Agent {
    engine: Engine,
    env: Env,
    cluster: Cluster,
    traffic: Traffic,
    budgets: Budgets,
}

/// Whether the agent has been asked to stop. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Ready once it has been asked to.
    pub(crate) async fn told(mut self) {
        // Gone, it has stopped.
        let _ = self.0.wait_for(|told| *told).await;
    }
}

impl Agent {
    /// An agent over `engine`.
    #[must_use]
    pub fn new(engine: Engine, env: Env, cluster: Cluster) -> Self {
        Self {
            engine,
            env,
            cluster,
            traffic: Traffic::default(),
            budgets: Budgets::default(),
        }
    }

    /// The same, with other budgets.
    #[must_use]
    pub fn with_budgets(self, budgets: Budgets) -> Self {
        Self { budgets, ..self }
    }

    /// What goes through it.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Serves on `listener` until `stop` is ready; then takes no new call, and returns when those
    /// under way have ended. A stream of appends ends once what it has taken is answered, and says that
    /// nothing else was; reads that follow end at once.
    ///
    /// # Errors
    /// What the listener says once it is broken.
    pub async fn serve(
        &self,
        listener: Box<dyn Listener>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), tonic::transport::Error> {
        let (engine, env) = (self.engine.clone(), self.env.clone());
        let (tell, told) = watch::channel(false);
        let stop = async move {
            stop.await;
            tell.send_replace(true);
        };
        let log = LogServer::new(LogService::new(
            engine.clone(),
            env.clone(),
            self.traffic.clone(),
            self.budgets,
            Stopping(told),
        ))
        .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(tuning::MESSAGE_BYTES_MAX);
        let admin = AdminServer::new(AdminService::new(engine, env, self.cluster.clone()))
            .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(tuning::MESSAGE_BYTES_MAX);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<LogServer<LogService>>().await;
        reporter.set_serving::<AdminServer<AdminService>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptors were made with the code");
        tuning::server()
            .layer(GateLayer)
            .add_service(health)
            .add_service(reflection)
            .add_service(log)
            .add_service(admin)
            .serve_with_incoming_shutdown(transport::incoming(listener), stop)
            .await
    }
}

/// The agent's clock, as records carry it.
pub(crate) fn now(env: &Env) -> Timestamp {
    Timestamp(i64::try_from(env.clock.wall().0).unwrap_or(i64::MAX))
}
