//! The real binary on hard days: killed at any moment, its bucket gone, while other processes write
//! and read; one server, and a cluster of three nodes with their agents. This process is those others:
//! it notes every call and answer, and the checker, which knows nothing of the product, judges.
//!
//! ```text
//!   this process ─ SDK ─► esker serve ─► folder, or MinIO
//!        │  ▲                 │ ▲
//!        │  └── stderr: what ─┘ └── SIGKILL, SIGTERM; MinIO: SIGSTOP, SIGKILL
//!        ▼      begins and ends
//!     history ─► checker
//! ```
//! The binary is the one that `ESKER_BINARY` names, or the one that cargo built along. A few kills
//! in every test run; all of them, on the release binary:
//!
//! ```sh
//! cargo build --release -p esker
//! ESKER_BINARY=$PWD/target/release/esker ESKER_MINIO=$(.ci/minio | tail -1) ESKER_KILLS=200 \
//!     ESKER_AGENT_SECONDS=600 cargo test -p esker --test hard -- --nocapture
//! ```
//! None at all with `ESKER_KILLS=0`, where they are run apart.
//!
//! `ESKER_OLD_BINARY` is one of an older version: what it wrote goes on in this one. A cluster of
//! `ESKER_OLD_CLUSTER_BINARY` is upgraded one process after the other.
//! `ESKER_SEED` is the seed that a run prints. It draws every delay, size and choice again; the
//! machine's own timing it cannot.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::panic,
    reason = "processes and their files, in real time; figures for who runs it"
)]

mod server; // the process under test
mod saying; // what it says on stderr: which work is under way
mod pen; // the history, and what is open in it
mod writer; // producers
mod claimant; // who appends only where it saw the end
mod reader; // who tails, who looks, who reads everything
mod clients; // all of them together
mod site; // a configuration, a bucket, and what outlives a process
mod net; // a network whose ways are cut
mod cluster; // a site of several processes
mod probe; // how long appends stand still
mod bucket; // what stands there, against what the log names
mod marks; // no watermark goes back

/// One test at a time: each has the machine for itself.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

type Turn = tokio::sync::MutexGuard<'static, ()>;

/// A test's turn. `None` where there are to be no hard days at all, since they are run apart.
async fn turn() -> Option<Turn> {
    match are_apart() {
        true => None,
        false => Some(TURN.lock().await),
    }
}

/// The same outside of any runtime.
fn blocking_turn() -> Option<Turn> {
    (!are_apart()).then(|| TURN.blocking_lock())
}

/// Whether `ESKER_KILLS` is 0.
fn are_apart() -> bool {
    let apart = std::env::var("ESKER_KILLS").is_ok_and(|kills| kills == "0");
    if apart {
        println!("left out: ESKER_KILLS=0 says that hard days are run apart");
    }
    apart
}

mod founded; // kill -9 in the first second of a cluster
mod killed; // kill -9 at any moment
mod away; // the bucket is away
mod volume; // a great deal, in and out
mod failing; // the disk fails
mod days; // of a cluster
mod upgrade; // what an older version left
