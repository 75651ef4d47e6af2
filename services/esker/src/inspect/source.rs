//! The bytes that are looked into: a file's, or an object's.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use esker_env::{Env, OpenMode};
use esker_object::{Key, Store};
use esker_types::Lane;
use esker_types::limits::{OBJECT_GET_BYTES_MAX, OBJECT_PUT_BYTES_MAX};

use crate::failure::Failure;
use crate::shell::Shell;

/// A file or an object.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// A file, or with --object-store the key of an object, as listings and errors show it
    #[arg(value_name = "FILE|KEY")]
    pub(super) name: String,
    /// The bucket that the object is in: file:///…, s3://bucket/prefix, gs://…, az://…
    #[arg(long, value_name = "URL")]
    object_store: Option<String>,
}

/// How files and objects begin, what they are, and which command reads them.
const KINDS: [(&[u8], &str, &str); 4] = [
    (b"ESKERSEG", "a segment", "segment"),
    (b"ESKERLCP", "a checkpoint of a node", "checkpoint"),
    (b"ESKERCKP", "a checkpoint of the bucket", "checkpoint"),
    (b"ESKERWAL", "a file of a node's log", "wal"),
];

/// Refuses what begins as something that another command reads.
pub(super) fn expect(
    command: &str,
    name: &str,
    first: &[u8],
    shell: &Shell,
) -> Result<(), Failure> {
    if first.is_empty() {
        return Err(Failure::new(format!("{name} is empty")));
    }
    let kind = KINDS
        .into_iter()
        .find(|(magic, ..)| first.starts_with(magic));
    match kind {
        Some((_, what, reads)) if reads != command => {
            let program = &shell.program;
            let next = format!("`{program} inspect {reads} {name}` reads it");
            Err(Failure::new(format!("{name} is {what}")).and_next(next))
        }
        _ => Ok(()),
    }
}

/// Whether `bytes` begin or end as one of ours does. A flipped bit may spare one of the two.
fn is_ours(bytes: &[u8]) -> bool {
    KINDS
        .into_iter()
        .any(|(magic, ..)| bytes.starts_with(magic) || bytes.ends_with(magic))
}

impl Source {
    /// All of it, for `command`.
    pub(super) async fn read(&self, command: &str, shell: &Shell) -> Result<Bytes, Failure> {
        let env = &shell.env;
        let bytes = match &self.object_store {
            Some(url) => self.object(url, env).await?,
            None => self.file(env)?,
        };
        expect(command, &self.name, &bytes, shell)?;
        if !is_ours(&bytes) {
            let name = &self.name;
            let text = format!("{name} is damaged where it begins, or no {command}");
            return Err(Failure::new(text));
        }
        Ok(bytes)
    }

    fn file(&self, env: &Env) -> Result<Bytes, Failure> {
        if self.name.contains("://") {
            return Err(Failure::usage(format!(
                "`{}` is a URL, no file: write the key of an object, and --object-store with the URL \
                 of its bucket",
                self.name
            )));
        }
        if env.files.list(Path::new(&self.name)).is_ok() {
            return Err(Failure::new(format!(
                "{} is a folder: name a file in it, such as one that ends in .seg or .ckp",
                self.name
            )));
        }
        let file = env.files.open(Path::new(&self.name), OpenMode::Read);
        let file = file.map_err(|error| match Key::parse(&self.name) {
            Some(_) => Failure::io(&self.name, &error)
                .and_next("for an object of a bucket name it with --object-store URL"),
            None => Failure::io(&self.name, &error),
        })?;
        let size = file.size();
        let size = size.map_err(|error| Failure::io(&self.name, &error))?;
        let mut bytes = vec![0; self.bounded(size)?];
        let read = file.read_at(&mut bytes, 0);
        let read = read.map_err(|error| Failure::io(&self.name, &error))?;
        bytes.truncate(read);
        Ok(bytes.into())
    }

    async fn object(&self, url: &str, env: &Env) -> Result<Bytes, Failure> {
        let key = Key::parse(&self.name).ok_or_else(|| {
            let text = format!("`{}` is no key of an object", self.name);
            Failure::usage(format!("{text}; keys begin behind the URL, with 20 digits"))
        })?;
        let options = esker_object::Options {
            environment: crate::run::environment(),
            ..esker_object::Options::default()
        };
        let failed = |error: esker_object::Error| Failure::new(error.to_string());
        let store = Store::open(url, &options, env).map_err(failed)?;
        let size = store.head(&key).await.map_err(failed)?;
        self.bounded(size)?;
        let mut bytes = BytesMut::new();
        let mut at = 0;
        while at < size {
            let end = size.min(at + OBJECT_GET_BYTES_MAX as u64);
            let part = store.get_range(&key, at..end, Lane::Backfill).await;
            bytes.extend_from_slice(&part.map_err(failed)?);
            at = end;
        }
        Ok(bytes.freeze())
    }

    /// `size`, if anything of ours may have as much.
    fn bounded(&self, size: u64) -> Result<usize, Failure> {
        let fits = usize::try_from(size).ok();
        fits.filter(|size| *size <= OBJECT_PUT_BYTES_MAX)
            .ok_or_else(|| {
                let limit = OBJECT_PUT_BYTES_MAX;
                let text = format!(
                    "{} has {size} bytes, none of ours has more than {limit}",
                    self.name
                );
                Failure::new(text)
            })
    }
}
