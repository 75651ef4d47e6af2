//! Bytes as the details of a status, as a client takes them from whoever answers: an error with a
//! code and a durability comes of any, and never one that claims more than it was told.
#![no_main]

use esker_proto::v1::{self, Durability};
use libfuzzer_sys::fuzz_target;
use tonic::{Code, Status};

fuzz_target!(|data: &[u8]| {
    let Some((first, details)) = data.split_first() else {
        return;
    };
    let code = Code::from(i32::from(first % 17));
    let text = String::from_utf8_lossy(details).into_owned();
    let bare = v1::Error::from(&Status::new(code, text.clone()));
    assert_ne!(bare.durability(), Durability::Durable);
    let status = Status::with_details(code, text, details.to_vec().into());
    let error = v1::Error::from(&status);
    let again = Status::from(error.clone());
    // A message is cut to what a status may carry.
    assert_eq!(v1::Error::from(&again).code, error.code);
    assert_eq!(v1::Error::from(&again).durability, error.durability);
});
