//! `--direct`: a bucket is read without any agent.

use esker_client::direct::{Direct, StoreOptions};

use crate::failure::Failure;
use crate::run::environment;
use crate::shell::Shell;

/// Whether a bucket is read, and which.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Bucket {
    /// Read the bucket itself, without any agent: what was flushed, whether its cluster runs,
    /// stands still or is gone
    #[arg(long, requires = "object_store")]
    direct: bool,
    /// The bucket that --direct reads: file:///…, s3://bucket/prefix, gs://…, az://…
    #[arg(long, value_name = "URL", requires = "direct")]
    object_store: Option<String>,
}

impl Bucket {
    /// The bucket, looked through, if one is to be read.
    pub(crate) async fn open(&self, shell: &Shell) -> Result<Option<Direct>, Failure> {
        let Some(url) = self.object_store.as_deref().filter(|_| self.direct) else {
            return Ok(None);
        };
        let options = StoreOptions {
            environment: environment(),
            ..StoreOptions::default()
        };
        let opened = Direct::open(url, &options, &shell.env).await;
        let direct = opened.map_err(|error| Failure::reading(&error))?;
        for note in direct.notes() {
            tracing::warn!("{note}");
        }
        Ok(Some(direct))
    }
}
