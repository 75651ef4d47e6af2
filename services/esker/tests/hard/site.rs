//! A configuration, a bucket, and what outlives a process.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use esker_client::direct::StoreOptions;
use esker_env::{Entropy as _, OsEntropy};
use esker_object::minio::Minio;
use tempfile::TempDir;

use crate::server::{Server, binary};

const BUCKET: &str = "bucket";
/// Ports to draw from: below those that the system gives to outgoing connections and those of the
/// MinIO of tests, so that nobody takes ours while the server is dead.
const PORTS: std::ops::Range<u16> = 11_000..19_000;
const PORTS_TRIED_MAX: usize = 32;

/// What outlives a process: data directory, bucket, address. Kept when a test fails.
pub(crate) struct Site {
    folder: TempDir,
    port: u16,
    starts: u32,
    pub(crate) minio: Option<Minio>,
}

impl Site {
    /// A site of its own. `settings` are TOML; the bucket is a MinIO's, or a folder.
    pub(crate) fn new(settings: &str, minio: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let minio = minio.map(|binary| {
            let minio = Minio::start(binary, &folder.path().join("minio"));
            let minio = minio.expect("MinIO starts");
            minio.make_bucket(BUCKET).expect("a bucket");
            minio
        });
        let site = Self {
            port: free_port(),
            folder,
            starts: 0,
            minio,
        };
        let own = format!(
            "data_dir = {:?}\nlisten.public = \"127.0.0.1:{}\"\nlisten.metrics = \"127.0.0.1:0\"\n\
             object_store.url = {:?}\n",
            site.path("data"),
            site.port,
            site.url(),
        );
        fs::write(site.path("esker.toml"), own + settings).expect("a configuration");
        site
    }

    /// Starts the server; it is not ready yet.
    pub(crate) fn spawn(&mut self) -> Server {
        self.spawn_by(&binary())
    }

    /// The same, by another binary.
    pub(crate) fn spawn_by(&mut self, binary: &Path) -> Server {
        self.starts += 1;
        let log = self.path(&format!("esker-{}.log", self.starts));
        let environment = self.minio.as_ref().map(Minio::environment);
        let (config, environment) = (self.path("esker.toml"), environment.unwrap_or_default());
        Server::spawn_at(binary, &[], &config, &environment, &log)
    }

    /// Where the public API is.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the bucket is.
    pub(crate) fn url(&self) -> String {
        match &self.minio {
            Some(_) => format!("s3://{BUCKET}/log"),
            None => format!("file://{}", self.path("bucket").display()),
        }
    }

    /// How to open the bucket.
    pub(crate) fn store_options(&self) -> StoreOptions {
        self.minio
            .as_ref()
            .map_or_else(StoreOptions::default, Minio::options)
    }

    /// Deletes the cache, as one may while no server runs.
    pub(crate) fn drop_cache(&self) {
        match fs::remove_dir_all(self.path("data").join("cache")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    /// Something of this site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            println!(
                "data, bucket, logs and history are in {}",
                self.folder.path().display()
            );
        }
    }
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    for _ in 0..PORTS_TRIED_MAX {
        let drawn = OsEntropy.next_u64() % (PORTS.len() as u64);
        let port = PORTS.start + u16::try_from(drawn).expect("below the number of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port of {PORTS:?}");
}
