//! Bytes as the file that `consume` keeps its positions in: whatever opens is kept again, and
//! resumes the same.
#![no_main]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use esker_env::sim::SimDisk;
use esker_env::{Files, replace_file};
use libfuzzer_sys::fuzz_target;

#[path = "../../../services/esker/src"]
mod services {
    pub(crate) mod positions;
}
use services::positions::Positions;

/// What the binary prints when it fails.
mod failure {
    #[derive(Debug)]
    pub(crate) struct Failure;

    impl Failure {
        pub(crate) fn new(text: impl Into<String>) -> Self {
            assert!(!text.into().is_empty());
            Self
        }

        pub(crate) fn and_next(self, _: impl Into<String>) -> Self {
            self
        }

        pub(crate) fn io(_: &str, _: &std::io::Error) -> Self {
            Self
        }
    }
}

mod shell {
    pub(crate) fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).expect("plain fields become JSON")
    }
}

fuzz_target!(|data: &[u8]| {
    let disk = SimDisk::new(1);
    let files: Arc<dyn Files> = Arc::new(disk.mount());
    files.create_dir_all(Path::new("/p")).expect("made");
    let path = Path::new("/p/positions");
    replace_file(&*files, path, &[IoSlice::new(data)]).expect("written");
    let open = || Positions::open(Arc::clone(&files), path, "t", 7);
    if let Ok(mut positions) = open() {
        assert_eq!(positions.path(), path);
        let mut resumed = positions.resumed();
        let kept = positions.keep([(0, 5, Some(2))].into_iter());
        kept.expect("kept");
        let mut again = open().expect("what we write we read").resumed();
        let first = again.remove(&0).expect("it was kept");
        assert_eq!((first.next.get(), first.incarnation), (5, Some(2)));
        resumed.remove(&0);
        assert_eq!(resumed, again);
    }
});
