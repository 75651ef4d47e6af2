//! Workers run what they are woken for, on threads and inline alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use esker_env::sim::Inline;
use esker_env::{Threads, Workers, WorkersExt};

async fn conformance(workers: &dyn Workers) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let waker = workers.start(
        "counter",
        Box::new(move || _ = counted.fetch_add(1, Ordering::SeqCst)),
    );
    waker.wake();
    reaches(&runs, 1).await;
    waker.clone().wake();
    reaches(&runs, 2).await;
    drop(waker);
    // The last waker gone, it runs once more and ends.
    reaches(&runs, 3).await;
    assert_eq!(workers.run(|| 6 * 7).await, 42);
}

/// Waits, with ten times the slack a loaded machine needs.
async fn reaches(runs: &AtomicUsize, wanted: usize) {
    for _ in 0..1000 {
        if runs.load(Ordering::SeqCst) >= wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        runs.load(Ordering::SeqCst) >= wanted,
        "the worker did not run {wanted} times"
    );
}

#[tokio::test]
async fn threads_conform() {
    conformance(&Threads::new()).await;
}

#[tokio::test(start_paused = true)]
async fn inline_conforms() {
    conformance(&Inline).await;
}
