//! Engines that share a head: each job is one's at a time.

use std::sync::Arc;
use std::time::Duration;

use esker_cache::BlockCache;
use esker_log::{Engine, EngineOptions};
use esker_object::{Options, Store};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole};
use esker_types::limits::{FLUSH_TURN, JOB_MAX, MIB};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::{engine_over, flushed_objects};

/// Another engine over the same head and bucket, which does what it is told to as the first one does.
fn beside(site: &Site, whole: &Whole, head: Hooked) -> Engine {
    engine_over(whole, head, options(site))
}

fn options(site: &Site) -> EngineOptions {
    EngineOptions {
        flush: site.flush,
        upkeep: site.upkeep,
        ..EngineOptions::default()
    }
}

fn run_it(whole: &Whole, engine: Engine) -> AbortHandle {
    let owner = whole.owner;
    tokio::spawn(async move { engine.run(owner).await }).abort_handle()
}

/// Segments that the shards name.
async fn named(whole: &Whole) -> usize {
    let mut named = 0;
    for shard in whole.engine.head().shards() {
        let page = whole.engine.head().manifest(shard, None, 1000).await;
        named += page.expect("it answers").items.len();
    }
    named
}

#[test]
fn engines_that_share_a_head_do_each_job_once() {
    run(async {
        let mut site = Site::new(59);
        site.upkeep.checkpoint = Duration::from_secs(30);
        let whole = site.start().await.expect("started");
        whole.create("logs", 8).await;
        let over = || Hooked::over(Arc::clone(whole.engine.head()));
        let others = [(); 2].map(|()| beside(&site, &whole, over()));
        let running = others.map(|engine| run_it(&whole, engine));
        let settle = Duration::from_secs(8);
        let mut wasted = Vec::new();
        let mut last = 0;
        for number in 0..36_u32 {
            for partition in 0..8 {
                let values = [vec![0; 100 + number as usize]];
                let done = whole.append("logs", partition, &values, None).await;
                done.expect("durable");
            }
            tokio::time::sleep(settle).await;
            let orphans = flushed_objects(&whole).await - named(&whole).await;
            wasted.push(orphans - last);
            last = orphans;
            match number {
                // Two are left, and then one: somebody has its jobs.
                12 => running[0].abort(),
                24 => whole.stop_flushing(),
                _ => {}
            }
        }
        // Two at once for a moment, where the first of them is gone: a few requests, and no more.
        assert!(wasted.iter().sum::<usize>() <= 4, "{wasted:?}");
        assert!(named(&whole).await >= 60, "{}", named(&whole).await);
        running[1].abort();
    });
}

/// It hears nothing of what it proposes, and is not told that it failed: it neither ends nor says so.
#[test]
fn a_job_that_never_ends_is_anothers_after_a_while_and_not_before() {
    run(async {
        let mut site = Site::new(60);
        let whole = site.start().await.expect("started");
        whole.stop_flushing();
        whole.create("logs", 1).await;
        let mut stuck = Hooked::over(Arc::clone(whole.engine.head()));
        stuck.before = Box::new(|call| {
            Box::pin(async move {
                if call == "propose" {
                    std::future::pending::<()>().await;
                }
            })
        });
        let stuck = run_it(&whole, beside(&site, &whole, stuck));
        let values = [vec![7; 100]];
        let done = whole.append("logs", 0, &values, None).await;
        done.expect("durable");
        let began = wait_until(async || flushed_objects(&whole).await == 1).await;
        assert_eq!(named(&whole).await, 0, "what it wrote is not proposed");

        // This one asks all the time.
        let well = Hooked::over(Arc::clone(whole.engine.head()));
        let well = run_it(&whole, beside(&site, &whole, well));
        let taken = wait_until(async || named(&whole).await == 1).await - began;
        let least = JOB_MAX - FLUSH_TURN;
        assert!(taken >= least, "it was taken from one at it: {taken:?}");
        assert!(taken <= JOB_MAX + 10 * FLUSH_TURN, "{taken:?}");
        assert!(!stuck.is_finished() && !well.is_finished());
        stuck.abort();
        well.abort();
    });
}

/// They reach the head and not the bucket, and were started like that: nobody knows yet whose it is.
#[test]
fn who_never_saw_the_bucket_keeps_nobody_from_flushing() {
    run(async {
        let mut site = Site::new(64);
        site.flush.age = Duration::from_secs(1);
        let whole = site.start().await.expect("started");
        whole.create("logs", 8).await;
        let blind = [(); 8].map(|()| {
            let url = format!("memory://{}", site.bucket);
            let opened = Store::open_with_faults(&url, &Options::default(), &whole.env);
            let (store, faults) = opened.expect("a bucket");
            faults.away(true);
            let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
            let (head, env) = (Arc::clone(whole.engine.head()), whole.env.clone());
            run_it(
                &whole,
                Engine::new(head, store, env, blocks, options(&site)),
            )
        });
        for round in 1..=5 {
            for partition in 0..8 {
                let done = whole.append("logs", partition, &[vec![7; 100]], None).await;
                done.expect("durable");
            }
            let began = Instant::now();
            let data = whole.engine.head().shards().len();
            let flushed = wait_until(async || named(&whole).await >= round * data).await;
            let taken = flushed - began;
            assert!(taken < JOB_MAX / 4, "{taken:?} in round {round}");
        }
        blind.iter().for_each(AbortHandle::abort);
    });
}

/// When it came to be so.
async fn wait_until(so: impl AsyncFn() -> bool) -> Instant {
    for _ in 0..10 * (2 * JOB_MAX).as_secs() {
        if so().await {
            return Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("it never came to be so")
}
