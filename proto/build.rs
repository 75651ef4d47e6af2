//! Compiles the .proto files without protoc, and keeps their descriptors for reflection.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a build script has no outside world but the real one, and speaks to cargo on stdout"
)]

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: &[&str] = &[
    "esker/v1/error.proto",
    "esker/v1/log.proto",
    "esker/v1/admin.proto",
];
/// Not for reflection: nobody else is to call it.
const INTERNAL_FILES: &[&str] = &[
    "esker/internal/v1/head.proto",
    "esker/internal/v1/members.proto",
    "esker/internal/v1/node.proto",
    "esker/internal/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for file in FILES.iter().chain(INTERNAL_FILES) {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&root])?;
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    for descriptors in [descriptors, protox::compile(INTERNAL_FILES, [&root])?] {
        tonic_prost_build::configure()
            // Payload is shared, not copied, from the message to the log and back.
            .bytes(".")
            .codec_path("crate::codec::Exact")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
