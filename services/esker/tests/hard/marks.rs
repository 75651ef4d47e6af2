//! No watermark goes back: every agent is asked for them all the time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use esker_client::Client;
use tokio::task::JoinSet;

use crate::clients::{TOPIC, connect, stop};

/// Between two looks at an agent.
const LOOK: Duration = Duration::from_millis(100);

/// Who looks.
pub(crate) struct Marks {
    tasks: JoinSet<()>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    looks: u64,
    back: Vec<String>,
}

impl Marks {
    pub(crate) async fn watch(endpoints: &[String]) -> Self {
        let (mut tasks, seen) = (JoinSet::new(), Arc::<Mutex<Seen>>::default());
        for endpoint in endpoints {
            let client = connect(endpoint).await;
            tasks.spawn(watch(client, endpoint.clone(), Arc::clone(&seen)));
        }
        Self { tasks, seen }
    }

    /// How often it was looked; nothing went back.
    pub(crate) async fn end(self) -> u64 {
        stop(self.tasks).await;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(seen.back.is_empty(), "{:#?}", seen.back);
        seen.looks
    }
}

async fn watch(client: Client, endpoint: String, seen: Arc<Mutex<Seen>>) {
    let mut highest = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        // Who looks about notes the refusals.
        let Ok((_, partitions)) = client.admin().describe_topic(TOPIC).await else {
            continue;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.looks += 1;
        for told in partitions {
            let now = [told.log_start, told.tiered_end, told.end];
            let before = highest.insert(told.partition, now).unwrap_or_default();
            if now.iter().zip(before).any(|(now, before)| *now < before) {
                let partition = told.partition;
                let back = format!("{endpoint} {partition}: {before:?}, then {now:?}");
                seen.back.push(back);
            }
        }
    }
}
