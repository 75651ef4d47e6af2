//! A line as `produce --format json` takes it: a record, or a text that says what is wrong.
#![no_main]
#![expect(dead_code, reason = "the binary prints what it takes")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../services/esker/src"]
mod services {
    pub(crate) mod config;
    pub(crate) mod object;
    pub(crate) mod when;
}
use services::{config, object, when};

fuzz_target!(|line: &[u8]| {
    if let Err(what) = object::parse(line) {
        assert!(!what.is_empty());
    }
});
