//! Sessions of a producer that are over, and what is left of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use esker_client::{Client, Code, Durability, Options, ProducerOptions};
use esker_env::sim::SimClock;
use esker_env::{Env, Job, Waker, Worker, Workers};

use super::{outcomes, small, wide};
use crate::service::Fate;
use crate::{ADDRESS, TOPIC, World, numbered, numbers};

/// Workers that take their time, and count.
#[derive(Debug)]
struct Slow {
    inner: Arc<dyn Workers>,
    takes: Duration,
    jobs: Arc<AtomicUsize>,
}

impl Workers for Slow {
    fn start(&self, name: &str, worker: Box<dyn Worker>) -> Waker {
        self.inner.start(name, worker)
    }

    fn submit(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        let (inner, takes) = (Arc::clone(&self.inner), self.takes);
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            inner.submit(job).await;
        })
    }
}

/// What is left of a session is decoded and compressed again, and no task waits for that.
#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_elsewhere_and_what_expires_meanwhile_hinders_nothing() {
    // The second time what was sent at once expires, and what came later goes on.
    for (takes, expected) in [(1, 7), (12, 4)] {
        let world = World::new(1, &[]).await;
        let mut seen = 0;
        world.service.fates(move |_| {
            seen += 1;
            match seen {
                1 => Fate::Refuse(Code::Fenced, Durability::NotWritten),
                _ => Fate::Decide,
            }
        });
        let env = Env::simulated(7).0;
        let jobs = Arc::new(AtomicUsize::new(0));
        let slow = Slow {
            inner: Arc::clone(&env.workers),
            takes: Duration::from_secs(takes),
            jobs: Arc::clone(&jobs),
        };
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            network: Arc::new(world.network.clone()),
            workers: Arc::new(slow),
            ..env
        };
        let uri = format!("http://{ADDRESS}");
        let client = Client::connect(&uri, Options::default(), &env).await;
        let options = ProducerOptions {
            delivery_timeout: Duration::from_secs(10),
            ..small()
        };
        let producer = client.unwrap().producer(TOPIC, options).await.unwrap();
        let mut deliveries = Vec::new();
        for number in 0..8 {
            deliveries.push(producer.send(wide(0, number)).await.unwrap());
            if number == 3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
        }
        let outcomes = outcomes(deliveries).await;
        assert_eq!(outcomes[0].as_ref().unwrap_err().code(), Code::Fenced);
        let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        for failed in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(failed.durability(), Durability::NotWritten, "{failed}");
        }
        assert_eq!(world.service.values(TOPIC, 0).len(), written);
        let jobs = jobs.load(Ordering::Relaxed);
        assert_eq!((written, jobs), (expected, 1), "{outcomes:?}");
        assert!(producer.send(wide(0, 8)).await.unwrap().await.is_ok());
    }
}

/// A service forgets producers that are silent for a day.
#[tokio::test(start_paused = true)]
async fn a_producer_that_was_forgotten_goes_on_at_once() {
    let world = World::new(1, &[]).await;
    let producer = world.producer(ProducerOptions::default()).await;
    producer.send(numbered(0, 0)).await.unwrap().await.unwrap();
    let key = (TOPIC.to_owned(), 0);
    {
        let mut state = world.service.state();
        state.partitions.get_mut(&key).unwrap().producers.clear();
    }
    let began = tokio::time::Instant::now();
    producer.send(numbered(0, 1)).await.unwrap().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(world.service.values(TOPIC, 0), numbers(0..2));
}
