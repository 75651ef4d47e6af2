//! Bytes as a server's configuration, and as one variable of its environment: refused with a text,
//! or taken with every value within its bounds.
#![no_main]
#![expect(dead_code, reason = "the binary reads what it takes")]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;

#[path = "../../../services/esker/src"]
mod services {
    pub(crate) mod config;
}
use services::config::{Config, File, Kind};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let environment = BTreeMap::from([("ESKER_WAL_DISK".to_owned(), text.to_owned())]);
    let none = BTreeMap::new();
    let file = File {
        path: "esker.toml".into(),
        text: text.to_owned(),
    };
    for (file, environment) in [(Some(&file), &none), (None, &environment)] {
        match Config::build(Kind::Serve, file, environment, &[]) {
            Ok(config) => {
                assert!(config.wal.disk.0 > 0 && config.flush.bytes.0 > 0);
                assert!(config.head_bytes() <= config.wal.disk.0);
                assert!(!config.bucket().is_empty());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
