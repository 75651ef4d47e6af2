//! Questions to a quorum, shared by all who ask at one time.
//!
//! ```text
//!   asked ─► nobody asks now ──────► a round of one's own
//!         ─► a round is under way ─► the next one, which begins once that is answered
//!         ─► the next one waits ───► joined
//! ```
//! A round that is under way is not for who asks now: it may have begun before what he must see was
//! acknowledged. So there are two at most, however many ask, and each waits for two at most. Whoever still
//! waits drives the round: one that began it may go away, and fails nobody else.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

/// What a round was answered, for all who wait for it.
pub(crate) type Answer<T> = Shared<BoxFuture<'static, T>>;

/// The rounds of one question. Clones share them.
#[derive(Clone)]
pub(crate) struct Rounds<T>(Arc<Mutex<Option<Round<T>>>>);

/// The newest round; it holds the one before it, as long as that is not answered.
struct Round<T> {
    begun: Arc<AtomicBool>,
    answer: Answer<T>,
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Rounds<T> {
    /// Joins a round that has not begun yet; it begins with `ask` if it is a new one. `ask` must end.
    pub(crate) fn join<F>(&self, ask: impl FnOnce() -> F + Send + 'static) -> Answer<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        // A whole round goes in and out: whoever panicked left one.
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(round) = newest.as_ref()
            && !round.begun.load(Ordering::SeqCst)
        {
            return round.answer.clone();
        }
        let before = newest.take().map(|round| round.answer);
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let round = async move {
            if let Some(before) = before {
                before.await;
            }
            // Nobody joins from here on, and only then is anybody asked.
            begins.store(true, Ordering::SeqCst);
            ask().await
        };
        let answer = round.boxed().shared();
        *newest = Some(Round {
            begun,
            answer: answer.clone(),
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::future::{join_all, poll_immediate};
    use tokio::sync::Semaphore;

    use super::*;

    /// Rounds that are answered, each with its number, as somebody lets them.
    struct Asked {
        rounds: Rounds<usize>,
        begun: Arc<AtomicUsize>,
        gate: Arc<Semaphore>,
    }

    impl Asked {
        fn new() -> Self {
            Self {
                rounds: Rounds::default(),
                begun: Arc::default(),
                gate: Arc::new(Semaphore::new(0)),
            }
        }

        fn join(&self) -> Answer<usize> {
            let (begun, gate) = (Arc::clone(&self.begun), Arc::clone(&self.gate));
            self.rounds.join(move || {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                async move {
                    gate.acquire().await.expect("nobody closes it").forget();
                    number
                }
            })
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn nobody_joins_a_round_that_is_under_way_and_all_join_the_next() {
        let asked = Asked::new();
        let mut first = asked.join();
        assert_eq!(poll_immediate(&mut first).await, None);
        assert_eq!(asked.begun(), 1);
        let mut others: Vec<_> = (0..100).map(|_| asked.join()).collect();
        for other in &mut others {
            assert_eq!(poll_immediate(other).await, None);
        }
        assert_eq!(asked.begun(), 1, "two are under way");
        asked.gate.add_permits(1);
        assert_eq!(first.await, 1);
        assert_eq!(poll_immediate(&mut others[0]).await, None);
        assert_eq!(asked.begun(), 2);
        // The second is under way: this one is for the third.
        let late = asked.join();
        asked.gate.add_permits(2);
        assert_eq!(join_all(others).await, [2; 100]);
        assert_eq!((late.await, asked.begun()), (3, 3));
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_no_round_with_him() {
        let asked = Asked::new();
        let wait = || tokio::spawn(asked.join());
        let first = wait();
        tokio::task::yield_now().await;
        assert_eq!(asked.begun(), 1);
        let (second, third) = (wait(), wait());
        tokio::task::yield_now().await;
        // Nobody is left of those that were told when the first is answered, but the one behind them.
        first.abort();
        second.abort();
        assert!(first.await.is_err() && second.await.is_err());
        asked.gate.add_permits(1);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(asked.begun(), 2);
        asked.gate.add_permits(1);
        assert_eq!(third.await.expect("nobody ends it"), 2);
    }

    /// Neither one that was answered with nobody left to hear it, nor one that nobody began.
    #[tokio::test]
    async fn a_round_that_all_have_left_holds_nobody_up() {
        let asked = Asked::new();
        let mut first = asked.join();
        assert_eq!(poll_immediate(&mut first).await, None);
        drop((first, asked.join(), asked.join()));
        let next = asked.join();
        asked.gate.add_permits(2);
        assert_eq!((next.await, asked.begun()), (2, 2));
        drop(asked.join());
        let next = asked.join();
        asked.gate.add_permits(1);
        assert_eq!((next.await, asked.begun()), (3, 3));
    }
}
