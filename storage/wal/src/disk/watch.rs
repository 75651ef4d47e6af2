//! Tasks that watch over the writer: one seals an idle tail, one ends a log whose disk hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use esker_env::{Env, Waker};

use super::options::{Fatal, OnFatal};
use super::shared::Shared;

/// Ends the log, and so the process, when a sync hangs past the bound: half-alive is worse than
/// dead, and nobody else can lead while this node keeps its lease. Runs as a task, since the
/// writer itself is what hangs.
pub(crate) async fn watch_syncs(shared: Arc<Shared>, env: Env, on_hang: OnFatal) {
    let bound = shared.options.sync_fatal;
    while !shared.has_failed() && !shared.queue().refusing {
        tokio::time::sleep(bound / 8).await;
        let now = env.clock.monotonic();
        let Some(age) = shared.sync_age(now).filter(|age| *age > bound) else {
            continue;
        };
        let path = shared.active_path();
        let error = format!("no answer for {} ms", age.as_millis());
        // Not by way of the note for the next start: the disk that hangs would hang that too.
        let fatal = Fatal {
            doing: "syncing",
            path,
            error,
        };
        shared.fail_with(&fatal, &on_hang);
    }
}

/// Seals the tail when it has been idle, until the log is closed. Runs as a task.
pub(crate) async fn keep_sealed(shared: Arc<Shared>, env: Env, writer: Waker) {
    let idle = shared.options.seal_idle;
    while !shared.has_failed() && !shared.queue().refusing {
        let unsealed = *shared.unsealed();
        let stalled = shared.stalled.load(Ordering::Acquire);
        let Some(since) = unsealed.filter(|_| !stalled) else {
            // A stalled writer is woken now and then: room may come from outside.
            let nap = if stalled {
                idle.max(Duration::from_millis(100))
            } else {
                Duration::MAX
            };
            let _ = tokio::time::timeout(nap, shared.wrote.notified()).await;
            if stalled {
                writer.wake();
            }
            continue;
        };
        let age = env.clock.monotonic().since(since);
        if age < idle {
            tokio::time::sleep(idle - age).await;
            continue;
        }
        shared.queue().seal = true;
        writer.wake();
        shared.wrote.notified().await;
    }
}
