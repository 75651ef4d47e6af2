//! Bytes as a node's identity on its disk: whatever loads is saved again, and loads the same.
#![no_main]

use std::io::IoSlice;
use std::path::Path;

use esker_env::sim::SimDisk;
use esker_env::{Files, replace_file};
use esker_walnode::Identity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let disk = SimDisk::new(1);
    let files = disk.mount();
    let directory = Path::new("/data");
    files.create_dir_all(directory).expect("made");
    let path = directory.join("identity.json");
    replace_file(&files, &path, &[IoSlice::new(data)]).expect("written");
    if let Ok(Some(identity)) = Identity::load(&files, directory) {
        identity.save(&files, directory).expect("saved");
        let again = Identity::load(&files, directory).expect("what we write we read");
        assert_eq!(again, Some(identity));
    }
});
