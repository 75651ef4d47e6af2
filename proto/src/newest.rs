//! What is done for those who came last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// Tasks for connections of strangers, at most so many at a time: for one more the oldest is given up. Who
/// connects and says nothing then keeps nobody out, as he would if others had to wait for him.
#[derive(Debug)]
pub struct Newest<T> {
    going: JoinSet<T>,
    /// Those that go on, and some that are over, the oldest first.
    order: VecDeque<(AbortHandle, Spared)>,
    most: usize,
}

/// Whether a task is given up only where all are like it: its stranger has said what he wants. Clones are of one
/// task.
#[derive(Clone, Debug, Default)]
pub struct Spared(Arc<AtomicBool>);

impl Spared {
    /// From now on it is.
    pub fn set(&self) {
        // A moment late does no harm.
        self.0.store(true, Ordering::Relaxed);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: Send + 'static> Newest<T> {
    /// None yet, and `most` at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            going: JoinSet::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// Begins `task`. Whether another was given up for it.
    pub fn begin(
        &mut self,
        spared: Spared,
        task: impl Future<Output = T> + Send + 'static,
    ) -> bool {
        // What is over, and was not handed out yet, takes no place any more.
        self.order.retain(|(going, _)| !going.is_finished());
        let full = self.order.len() >= self.most;
        if full {
            let silent = self.order.iter().position(|(_, spared)| !spared.is());
            if let Some((given_up, _)) = self.order.remove(silent.unwrap_or(0)) {
                given_up.abort();
            }
        }
        self.order.push_back((self.going.spawn(task), spared));
        full
    }

    /// What the next of them came to that is over: `Some(None)` if it was given up, or panicked. `None` if there
    /// are none. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Option<T>> {
        Some(self.going.join_next().await?.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks that hold something for as long as they go on.
    struct Tasks {
        newest: Newest<()>,
        held: Vec<(Arc<()>, Spared)>,
    }

    impl Tasks {
        /// One more, and whether another was given up for it, which is then gone.
        async fn one_more(&mut self) -> bool {
            let (held, spared) = (Arc::new(()), Spared::default());
            self.held.push((Arc::clone(&held), spared.clone()));
            let given_up = self.newest.begin(spared, async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            if given_up {
                assert_eq!(self.newest.next().await, Some(None));
            }
            given_up
        }

        fn there(&self) -> Vec<usize> {
            let held = self.held.iter().enumerate();
            let there = held.filter(|(_, (held, _))| Arc::strong_count(held) > 1);
            there.map(|(at, _)| at).collect()
        }
    }

    #[tokio::test]
    async fn one_more_ends_the_oldest_that_has_said_nothing() {
        let mut tasks = Tasks {
            newest: Newest::new(3),
            held: Vec::new(),
        };
        for _ in 0..3 {
            assert!(!tasks.one_more().await);
        }
        assert!(tasks.one_more().await);
        assert_eq!(tasks.there(), [1, 2, 3]);
        tasks.held[1].1.set();
        assert!(tasks.one_more().await);
        assert_eq!(tasks.there(), [1, 3, 4]);
        // All have said something: then the oldest of all.
        for at in [3, 4] {
            tasks.held[at].1.set();
        }
        assert!(tasks.one_more().await);
        assert_eq!(tasks.there(), [3, 4, 5]);
        assert_eq!(tasks.newest.order.len(), 3);
    }

    #[tokio::test]
    async fn what_is_over_takes_no_place() {
        let mut newest = Newest::new(1);
        for at in 0..3 {
            assert!(!newest.begin(Spared::default(), async move { at }));
            assert_eq!(newest.next().await, Some(Some(at)));
        }
        assert_eq!(newest.next().await, None);
    }
}
