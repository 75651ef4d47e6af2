use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn budget(bytes: usize) -> Budget {
    Budget::new(bytes, Held::default())
}

/// Whether `waiting` has its answer by now.
fn poll<T>(waiting: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    waiting.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_what_is_large() {
    let budget = budget(100);
    let first = budget.take(60).await.unwrap();
    let mut large = pin!(budget.take(90));
    assert!(poll(large.as_mut()).is_pending());
    let mut small = pin!(budget.take(10));
    assert!(poll(small.as_mut()).is_pending(), "there is room for 40");
    drop(first);
    let Poll::Ready(Ok(large)) = poll(large) else {
        panic!("all is free");
    };
    let Poll::Ready(Ok(small)) = poll(small) else {
        panic!("10 are left");
    };
    assert_eq!((budget.held.now.get(), budget.held.most.get()), (100, 100));
    drop((large, small));
    assert_eq!((budget.held.now.get(), budget.held.most.get()), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_goes_to_the_next() {
    let budget = budget(100);
    let mut first = budget.take(100).await.unwrap();
    let mut next = pin!(budget.take(30));
    assert!(poll(next.as_mut()).is_pending());
    first.keep(71);
    assert!(poll(next.as_mut()).is_pending());
    first.keep(90);
    assert_eq!(budget.held.now.get(), 71, "a share grew");
    first.keep(70);
    assert!(poll(next).is_ready());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_refused_with_both_numbers() {
    let budget = budget(100);
    let (asked, limit) = (101, 100);
    let refused = budget.take(101).await.unwrap_err();
    assert_eq!(refused, NoShare::TooLarge { asked, limit });
    let share = budget.take(50).await.unwrap();
    let mut waiting = pin!(budget.take(60));
    assert!(poll(waiting.as_mut()).is_pending());
    let refused = budget.take(41).await.unwrap_err();
    let expected = NoShare::Crowded {
        waiting: 101,
        limit,
    };
    assert_eq!(refused, expected);
    let began = tokio::time::Instant::now();
    let refused = waiting.await.unwrap_err();
    let (asked, held) = (60, 50);
    assert_eq!(refused, NoShare::Late { asked, held, limit });
    assert_eq!(began.elapsed(), BUDGET_WAIT_MAX);
    // Who gave up waits no more, and holds nothing.
    drop(budget.take(50).await.unwrap());
    drop(share);
    drop(budget.take(100).await.unwrap());
    assert_eq!(budget.held.now.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_all_have_their_turn_and_never_more_than_there_is() {
    use std::sync::atomic::AtomicUsize;
    let budget = budget(1000);
    let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for number in 0..200_usize {
        let (budget, held, most) = (budget.clone(), Arc::clone(&held), Arc::clone(&most));
        tasks.push(tokio::spawn(async move {
            let bytes = 1 + number * 37 % 400;
            let share = loop {
                match budget.take(bytes).await {
                    Ok(share) => break share,
                    // As a client does.
                    Err(NoShare::Crowded { .. }) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other}"),
                }
            };
            let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
            most.fetch_max(now, Ordering::SeqCst);
            tokio::task::yield_now().await;
            held.fetch_sub(bytes, Ordering::SeqCst);
            drop(share);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((601..=1000).contains(&most), "{most} bytes at most");
    assert_eq!(budget.held.now.get(), 0);
}

#[tokio::test]
async fn what_may_be_left_lying_leaves_half_to_the_others() {
    let budget = budget(100);
    let lying = budget.take_spare(50).expect("half is left");
    assert!(budget.take_spare(1).is_none());
    // Who waits for nobody is not kept waiting.
    let work = budget.take_free(50).expect("the other half");
    drop((lying, work));
    assert!(budget.take_spare(51).is_none());
    assert!(budget.take_spare(50).is_some());
}
