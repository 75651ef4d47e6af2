//! A listener that goes on.

use std::io;

use esker_env::{Connection, Listener, passes};
use esker_types::limits::{ACCEPT_REST, ACCEPT_TOLD};
use tokio::time::Instant;

/// Accepts for as long as the listener lives. A want of descriptors or memory passes when others
/// end, however long that takes: it rests [`ACCEPT_REST`] and tries again, without an end, since a
/// server that listens no more is of no use to those who have a connection either. It says so once
/// in [`ACCEPT_TOLD`].
#[derive(Debug)]
pub struct Accepting {
    listener: Box<dyn Listener>,
    failed: u64,
    told: Option<Instant>,
}

impl Accepting {
    /// Over `listener`.
    #[must_use]
    pub fn new(listener: Box<dyn Listener>) -> Self {
        Self {
            listener,
            failed: 0,
            told: None,
        }
    }

    /// The next connection. May be dropped and called again: none is lost.
    ///
    /// # Errors
    /// The listener is broken for good.
    pub async fn next(&mut self) -> io::Result<Connection> {
        loop {
            match self.listener.accept().await {
                Err(error) if passes(&error) => self.failed(&error),
                accepted => return accepted,
            }
            tokio::time::sleep(ACCEPT_REST).await;
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.failed += 1;
        if self.told.is_some_and(|told| told.elapsed() < ACCEPT_TOLD) {
            return;
        }
        self.told = Some(Instant::now());
        tracing::warn!(
            %error,
            address = self.listener.address(),
            failed = self.failed,
            "no connection can be accepted now; those that are there go on, new ones wait"
        );
    }
}

#[cfg(test)]
mod tests {
    use esker_env::Network;
    use esker_env::sim::SimNetwork;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_want_of_descriptors_ends_no_listener() {
        let network = SimNetwork::new();
        let mut accepting = Accepting::new(network.listen("node:1").await.unwrap());
        // Far longer than a minute of tries.
        network.starve("node:1", 2000);
        let _near = network.connect("node:1").await.unwrap();
        let began = Instant::now();
        let far = accepting.next().await.unwrap();
        assert!(far.peer().starts_with("sim:"), "{far:?}");
        assert_eq!((accepting.failed, network.starves("node:1")), (2000, 0));
        assert_eq!(began.elapsed(), ACCEPT_REST * 2000);
        // Told at first, and then once in a while: at the last of the intervals begun.
        let told = accepting.told.unwrap().elapsed();
        assert!(told <= ACCEPT_TOLD + ACCEPT_REST, "{told:?}");
    }
}
