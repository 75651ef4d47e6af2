//! Openraft's tasks live together.

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use esker_wal::raft::types::Runtime;
use openraft::AsyncRuntime as _;

use super::world::run;

const TOLD: &str = "ESKER_TEST_PANIC";
const SIGABRT: i32 = 6;

/// It is run once more by itself, in a process of its own.
#[test]
fn a_task_of_raft_that_panics_ends_the_process() {
    if env::var_os(TOLD).is_some() {
        let panics = async { panic!("as it was told to") };
        run(Runtime::scope(1, async {
            drop(Runtime::spawn(panics).await)
        }));
        return;
    }
    let itself = env::current_exe().expect("it runs");
    let name = "together::a_task_of_raft_that_panics_ends_the_process";
    let mut again = Command::new(itself);
    again.args(["--exact", name]).env(TOLD, "1");
    let ended = again.output().expect("it runs");
    assert_eq!(ended.status.signal(), Some(SIGABRT), "{ended:?}");
}
