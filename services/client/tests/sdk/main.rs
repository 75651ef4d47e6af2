//! The SDK against a real gRPC server over a simulated network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod calls;
mod producing;
mod reading;
mod service;

use std::sync::Arc;

use esker_client::{Client, Options, Producer, ProducerOptions, Record};
use esker_env::sim::{SimClock, SimNetwork};
use esker_env::{Env, Network};
use service::Service;

const ADDRESS: &str = "agent:7070";
const TOPIC: &str = "t";

/// A service with one topic, and a client of it.
struct World {
    service: Service,
    network: SimNetwork,
    client: Client,
}

impl World {
    async fn new(partitions: u32, settings: &[(&str, &str)]) -> Self {
        let network = SimNetwork::new();
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            network: Arc::new(network.clone()),
            ..Env::simulated(7).0
        };
        let service = Service::new();
        service.state().topics.create(TOPIC, partitions, settings);
        service.serve(network.listen(ADDRESS).await.unwrap());
        let uri = format!("http://{ADDRESS}");
        let client = Client::connect(&uri, Options::default(), &env)
            .await
            .unwrap();
        Self {
            service,
            network,
            client,
        }
    }

    async fn producer(&self, options: ProducerOptions) -> Producer {
        self.client.producer(TOPIC, options).await.unwrap()
    }

    /// Appends the numbers of `range` to partition 0, three to a batch.
    async fn fill(&self, range: std::ops::Range<u32>) {
        let producer = self.producer(ProducerOptions::default()).await;
        for start in range.clone().step_by(3) {
            for number in start..range.end.min(start + 3) {
                let _delivery = producer.send(numbered(0, number)).await.unwrap();
            }
            producer.flush().await.unwrap();
        }
    }
}

fn numbered(partition: u32, number: u32) -> Record {
    Record {
        partition: Some(partition),
        ..Record::value(number.to_string())
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
