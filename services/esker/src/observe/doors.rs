//! Who was let in, and who was not, and for how long what is shown holds.

use std::fmt;
use std::sync::Arc;

use esker_proto::tls::{Handshakes, Outcome, Showing};
use esker_walnode::peers::Guard;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::figures::Pen;

/// The listeners that ask who is there, `None` for those that do not, and what is shown to others.
#[derive(Clone, Default, Debug)]
pub(crate) struct Doors {
    /// The public API's.
    pub(crate) public: Option<Arc<Handshakes>>,
    /// That for other nodes and agents.
    pub(crate) peers: Option<Arc<Handshakes>>,
    /// What stands before the services for them.
    pub(crate) guard: Option<Guard>,
    /// The certificate of the public API, if it has one.
    pub(crate) shown_to_clients: Option<Showing>,
    /// Those that other nodes are shown, by the listener and by who connects: of the same file.
    pub(crate) shown_to_peers: Vec<Showing>,
}

/// When what a port shows expires, in seconds of the Unix epoch.
pub(super) type Expiry = (&'static str, i64);

impl Doors {
    /// When certificates expire.
    pub(super) async fn expiries(&self) -> Vec<Expiry> {
        let mut ports = Vec::new();
        if let Some(showing) = &self.shown_to_clients {
            ports.extend(showing.not_after().await.map(|end| ("public", end)));
        }
        let mut first: Option<i64> = None;
        for showing in &self.shown_to_peers {
            let end = showing.not_after().await;
            first = first.into_iter().chain(end).min();
        }
        ports.extend(first.map(|end| ("peers", end)));
        ports
    }

    pub(super) fn figures(&self, pen: &mut Pen<'_>) -> fmt::Result {
        if let Some(guard) = &self.guard {
            let refused = guard.all_refused().into_iter();
            let refused = refused.map(|(why, count)| (why.to_owned(), ConstCounter::new(count)));
            let help = "Calls of nodes, agents and operators that were refused, and why";
            pen.each("peer_refusals", help, "why", refused)?;
        }
        let ports = [("public", &self.public), ("peers", &self.peers)];
        let asking = ports
            .into_iter()
            .filter_map(|(port, handshakes)| Some((port, handshakes.as_ref()?)));
        let asking: Vec<_> = asking.collect();
        if asking.is_empty() {
            return Ok(());
        }
        let help = "TLS handshakes, by listener and by what they came to";
        pen.family("tls_handshakes", help, MetricType::Counter, |encoder| {
            for (port, handshakes) in &asking {
                for outcome in Outcome::ALL {
                    let labels = [("port", *port), ("result", outcome.name())];
                    let count = ConstCounter::new(handshakes.count(outcome));
                    count.encode(encoder.encode_family(&labels)?)?;
                }
            }
            Ok(())
        })
    }
}
