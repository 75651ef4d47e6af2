//! Tasks that watch over the writer: one seals an idle tail, one ends a log whose disk hangs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use esker_env::{Clock, Env, Monotonic, Waker};

use super::options::{Fatal, OnFatal, WalOptions};
use super::shared::Shared;

/// Ends the log, and so the process, when a sync hangs past the bound, or a frame waits for a file
/// past another: half-alive is worse than dead, and nobody else can lead while this node keeps its
/// lease. Runs as a task, since the writer itself is what hangs.
pub(crate) async fn watch_syncs(
    shared: Weak<Shared>,
    options: WalOptions,
    clock: Arc<dyn Clock>,
    on_hang: OnFatal,
) {
    let bound = options.sync_fatal;
    let mut said = None;
    loop {
        // A log that was closed meanwhile is not kept for the length of this sleep.
        tokio::time::sleep(bound.min(options.stall_fatal) / 8).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.has_failed() || shared.queue().refusing {
            return;
        }
        let now = clock.monotonic();
        watch_stall(&shared, now, &mut said, &on_hang);
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

/// Says once that the writer waits for a file, and ends the log if none comes: what would make room
/// may be waiting behind it. `said` is the stall that was told.
fn watch_stall(shared: &Shared, now: Monotonic, said: &mut Option<Monotonic>, on_hang: &OnFatal) {
    let stalled = shared.stalled();
    let Some(since) = stalled else {
        *said = None;
        return;
    };
    let (age, stats) = (now.since(since), shared.stats());
    if *said != stalled {
        *said = stalled;
        tracing::error!(
            files = stats.files,
            queued_bytes = stats.queued_bytes,
            disk_bytes = shared.options.disk_bytes,
            "the WAL has used up its reserve: nothing is written until a file is released"
        );
    }
    if age > shared.options.stall_fatal {
        let (files, queued) = (stats.files, stats.queued_bytes);
        let waited = age.as_millis();
        let error = format!(
            "{queued} bytes have waited {waited} ms for a file, and all {files} are held; raise the \
             WAL's budget, or make room on its disk, and see why the bucket does not take what is \
             held"
        );
        // No note for the next start: the disk did what it was asked.
        let fatal = Fatal {
            doing: "going on behind",
            path: shared.active_path(),
            error,
        };
        shared.fail_with(&fatal, on_hang);
    }
}

/// Seals the tail when it has been idle, until the log is closed. Runs as a task.
pub(crate) async fn keep_sealed(shared: Arc<Shared>, env: Env, writer: Waker) {
    let idle = shared.options.seal_idle;
    while !shared.has_failed() && !shared.queue().refusing {
        let stalled = shared.stalled().is_some();
        let unsealed = {
            let mut tail = shared.tail();
            tail.awaited = stalled || tail.unsealed.is_none();
            tail.unsealed
        };
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
            // Until then, or until it is closed.
            let _ = tokio::time::timeout(idle - age, shared.wrote.notified()).await;
            continue;
        }
        shared.tail().awaited = true;
        shared.queue().seal = true;
        writer.wake();
        shared.wrote.notified().await;
    }
}
