//! The bytes that are looked into: a file's, or an object's.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use esker_env::{Env, OpenMode};
use esker_object::{Key, Store};
use esker_types::Lane;
use esker_types::limits::{OBJECT_GET_BYTES_MAX, OBJECT_PUT_BYTES_MAX};

use crate::failure::Failure;

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

impl Source {
    /// All of it.
    pub(super) async fn read(&self, env: &Env) -> Result<Bytes, Failure> {
        match &self.object_store {
            Some(url) => self.object(url, env).await,
            None => self.file(env),
        }
    }

    fn file(&self, env: &Env) -> Result<Bytes, Failure> {
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
