//! The WAL node of a server, running: until it dies, or is told to end.

use std::time::Duration;

use esker_walnode::Node;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::ServeError;

/// How long the node may take to leave its shards well checkpointed.
const STOP_NODE: Duration = Duration::from_millis(800);

/// A WAL node that runs by itself.
#[derive(Debug)]
pub(super) struct Keeping {
    running: JoinHandle<Result<(), ServeError>>,
    stop: oneshot::Sender<()>,
}

impl Keeping {
    /// Runs what `run` makes of the sign to end.
    pub(super) fn start<F>(run: impl FnOnce(oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = Result<(), ServeError>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(run(stopped));
        Self { running, stop }
    }

    /// Runs `node`, which leads alone.
    pub(super) fn alone(mut node: Node) -> Self {
        Self::start(async move |stopped| {
            let died = tokio::select! {
                biased;
                died = node.ended() => died,
                // Dropped or told: either way it is time.
                _ = stopped => {
                    node.close().await;
                    return Ok(());
                }
            };
            Err(died.into())
        })
    }

    /// Waits until it has died, and says of what.
    pub(super) async fn died(&mut self) -> ServeError {
        match (&mut self.running).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => ServeError::Died("nobody asked the WAL node to end".to_owned()),
            Err(panicked) => ServeError::Died(panicked.to_string()),
        }
    }

    #[cfg(test)]
    pub(super) async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }

    /// Ends it, so that the next start has little to do.
    pub(super) async fn close(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        // Left alone when time is up: the log keeps the directory's lock for as long as somebody may
        // write to it, which may be until the process ends.
        let running = tokio::time::timeout(STOP_NODE, self.running);
        if running.await.is_err() {
            tracing::warn!("the node was not checkpointed in time; the next start applies more");
        }
    }
}
