//! Jobs that engines share: who asks the leader of a shard, and is told so, does it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use esker_env::Env;
use esker_types::ShardId;
use esker_types::limits::JOB_MAX;

use crate::error::HeadError;
use crate::head::{Bid, Head, Job, WorkerId};

/// This engine, among those that share a head.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    head: Arc<dyn Head>,
    id: WorkerId,
    /// Jobs whose last try failed.
    failed: Arc<Mutex<BTreeSet<(ShardId, Job)>>>,
}

impl Worker {
    pub(crate) fn new(head: Arc<dyn Head>, env: &Env) -> Self {
        let id = WorkerId(env.entropy.next_u128());
        let failed = Arc::default();
        Self { head, id, failed }
    }

    /// Whether it is this engine's turn at `job` of `shard`; to be asked every `again`, whether there is
    /// anything to do or not, so that it is not taken for gone.
    pub(crate) async fn has(
        &self,
        shard: ShardId,
        job: Job,
        again: Duration,
    ) -> Result<bool, HeadError> {
        self.ask(shard, job, again, false).await
    }

    /// Does `work`, which is `job` of `shard`, and keeps others from it meanwhile: for [`JOB_MAX`], after
    /// which it falls silent, and the job is another's once it is missed.
    pub(crate) async fn at<T>(
        &self,
        shard: ShardId,
        job: Job,
        again: Duration,
        work: impl Future<Output = T>,
    ) -> T {
        let keep = async {
            let keep = async {
                loop {
                    // Whoever leads now hears of it the next time, or gives it to another.
                    let _ = self.ask(shard, job, again, true).await;
                    tokio::time::sleep(again).await;
                }
            };
            let _: Result<(), _> = tokio::time::timeout(JOB_MAX, keep).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = keep => unreachable!("it never ends"),
        }
    }

    /// The last try at a job has failed, or not: others have it while it does.
    pub(crate) fn note(&self, shard: ShardId, job: Job, failed: bool) {
        let mut all = self.failed.lock().expect("nothing panics under this lock");
        if failed {
            all.insert((shard, job));
        } else {
            all.remove(&(shard, job));
        }
    }

    async fn ask(
        &self,
        shard: ShardId,
        job: Job,
        again: Duration,
        busy: bool,
    ) -> Result<bool, HeadError> {
        let worker = self.id;
        let failed = self.failed.lock();
        let failed = failed
            .expect("nothing panics under this lock")
            .contains(&(shard, job));
        let bid = Bid {
            job,
            worker,
            busy,
            failed,
            again,
        };
        self.head.turn(shard, bid).await
    }
}
