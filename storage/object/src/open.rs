//! A store from a URL.
//!
//! | URL | store | settings |
//! |---|---|---|
//! | `file:///abs/path` | a folder; made only if asked for, every write synced | none |
//! | `s3://bucket/prefix` | S3 and its kin | `AWS_*` as the AWS tools know them; no profiles |
//! | `gs://bucket/prefix` | Google Cloud Storage | `GOOGLE_*` |
//! | `az://container/prefix` | Azure Blob Storage | `AZURE_*` |
//! | `memory://name/prefix` | this process; the same name is the same bucket | none |

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use esker_env::{Env, OpenMode};
use esker_types::limits::OBJECT_MEMORY_BUCKETS_MAX;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::backend::{Backend, Order};
use crate::budget::Budget;
use crate::error::Error;

/// Time to establish a connection; the deadline of a request is our own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries left to `object_store` itself: one, for a connection that the server had closed.
const INNER_RETRIES: usize = 1;
/// Time after which it starts none.
const INNER_RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// How to open a store, its URL aside.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// The process's environment, handed in by the composition root. Names that the store does
    /// not know are passed over.
    pub environment: BTreeMap<String, String>,
    /// Settings by the same names, upper or lower case; they win, and an unknown one is an error.
    /// Of use with S3's kin: `aws_endpoint`, `aws_region`, `aws_access_key_id`,
    /// `aws_secret_access_key`, `aws_virtual_hosted_style_request`, `aws_allow_http`.
    pub settings: BTreeMap<String, String>,
    /// Whether the folder of a `file://` URL is made if it is not there: for who founds a bucket, not
    /// for who reads one. Default: it is not.
    pub make_folder: bool,
    /// What requests may spend.
    pub budget: Budget,
}

/// The buckets of `memory://`, by name, for as long as the process lives: a node that restarts
/// within a test finds what it wrote.
static MEMORY: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());

pub(crate) fn backend(url: &str, options: &Options, env: &Env) -> Result<Backend, Error> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::open(
            url,
            "it has no scheme; write file:///path, s3://bucket/prefix, gs://, az:// or memory://name",
        ));
    };
    if rest.contains(['@', '?', '#']) {
        // Not repeated: what stands before an `@` may be a secret.
        return Err(Error::open(
            &format!("{scheme}://…"),
            "it holds `@`, `?` or `#`; credentials and settings go into the environment",
        ));
    }
    if scheme == "file" {
        return open_folder(url, rest, options.make_folder, env);
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(Error::open(url, "it names no bucket"));
    }
    let prefix = prefix.trim_end_matches('/');
    let prefix = Path::parse(prefix).map_err(|error| Error::open(url, error.to_string()))?;
    let store: Arc<dyn ObjectStore> = match scheme {
        "memory" => memory_bucket(url, bucket)?,
        "s3" => open_s3(url, bucket, options, env)?,
        "gs" => open_gs(url, bucket, options)?,
        "az" => open_az(url, bucket, options)?,
        _ => {
            return Err(Error::open(
                url,
                "its scheme is unknown; known are file, s3, gs, az and memory",
            ));
        }
    };
    let store = if prefix.as_ref().is_empty() {
        store
    } else {
        Arc::new(PrefixStore::new(store, prefix))
    };
    Ok(Backend::new(store, Order::Ascending))
}

fn open_folder(url: &str, path: &str, make: bool, env: &Env) -> Result<Backend, Error> {
    let path = std::path::Path::new(path);
    if !path.is_absolute() {
        return Err(Error::open(url, "its path is not absolute"));
    }
    let there = match make {
        // Durably: else a crash may take the folder away, and every synced object in it.
        true => env.files.create_dir_all(path),
        false => env.files.list(path).map(drop),
    };
    there.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !make => {
            let text = format!(
                "there is no folder {}; who reads makes none",
                path.display()
            );
            Error::open(url, text)
        }
        io::ErrorKind::NotADirectory => {
            Error::open(url, format!("{} is no folder", path.display()))
        }
        _ => Error::open(url, error.to_string()),
    })?;
    let store = LocalFileSystem::new_with_prefix(path)
        .map_err(|error| Error::open(url, error.to_string()))?
        .with_fsync(true);
    Ok(Backend::new(Arc::new(store), Order::Any))
}

fn memory_bucket(url: &str, name: &str) -> Result<Arc<InMemory>, Error> {
    let mut buckets = MEMORY.lock().expect("no holder panics");
    if let Some(bucket) = buckets.get(name) {
        return Ok(Arc::clone(bucket));
    }
    if buckets.len() >= OBJECT_MEMORY_BUCKETS_MAX {
        return Err(Error::open(
            url,
            format!(
                "this process has {OBJECT_MEMORY_BUCKETS_MAX} memory buckets, which is the limit"
            ),
        ));
    }
    let bucket = Arc::new(InMemory::new());
    buckets.insert(name.to_owned(), Arc::clone(&bucket));
    Ok(bucket)
}

/// Drops the bucket `memory://name` from the process, for tests that make many.
#[cfg(feature = "testing")]
pub fn forget_memory_bucket(name: &str) {
    MEMORY.lock().expect("no holder panics").remove(name);
}

fn open_s3(
    url: &str,
    bucket: &str,
    options: &Options,
    env: &Env,
) -> Result<Arc<dyn ObjectStore>, Error> {
    install_crypto();
    let mut builder = AmazonS3Builder::new();
    let mut endpoint = None;
    for (key, value) in configured::<AmazonS3ConfigKey>(url, "aws_", options)? {
        if key == AmazonS3ConfigKey::Endpoint {
            endpoint = Some(value.clone());
        }
        builder = builder.with_config(key, value);
    }
    if endpoint.as_deref().is_some_and(is_loopback) {
        builder = builder.with_allow_http(true);
    }
    if let Some(missing) = missing_credentials(&builder, env) {
        return Err(Error::open(url, missing));
    }
    let store = builder
        .with_bucket_name(bucket)
        .with_client_options(client_options(endpoint.as_deref(), options))
        .with_retry(inner_retry())
        .build();
    Ok(Arc::new(
        store.map_err(|error| Error::open(url, error.to_string()))?,
    ))
}

/// What lacks, if nothing says who we are. Unasked, `object_store` would wait for the metadata service
/// of a machine that may be none of Amazon's.
fn missing_credentials(builder: &AmazonS3Builder, env: &Env) -> Option<&'static str> {
    use AmazonS3ConfigKey as Name;
    let is_set = |name| {
        builder
            .get_config_value(&name)
            .is_some_and(|value| !value.is_empty())
    };
    match (is_set(Name::AccessKeyId), is_set(Name::SecretAccessKey)) {
        (true, true) => return None,
        (true, false) => return Some("AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not"),
        (false, true) => return Some("AWS_SECRET_ACCESS_KEY is set, AWS_ACCESS_KEY_ID is not"),
        (false, false) => {}
    }
    let is_unsigned = builder
        .get_config_value(&Name::SkipSignature)
        .is_some_and(|value| value == "true");
    let is_known = is_unsigned
        || is_set(Name::WebIdentityTokenFile) && is_set(Name::RoleArn)
        || is_set(Name::ContainerCredentialsRelativeUri)
        || is_set(Name::ContainerCredentialsFullUri)
            && is_set(Name::ContainerAuthorizationTokenFile)
        || is_set(Name::MetadataEndpoint)
        || is_ec2(env);
    (!is_known).then_some(
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (profiles and \
         ~/.aws are not read); for the role of a machine that does not look like an EC2 instance, \
         set AWS_METADATA_ENDPOINT=http://169.254.169.254",
    )
}

/// Whether this is a machine of Amazon's, which has a role, by what its firmware says.
fn is_ec2(env: &Env) -> bool {
    let mut vendor = [0; 10];
    let path = std::path::Path::new("/sys/class/dmi/id/sys_vendor");
    let read = env.files.open(path, OpenMode::Read);
    read.and_then(|file| file.read_at(&mut vendor, 0)).is_ok() && vendor == *b"Amazon EC2"
}

fn open_gs(url: &str, bucket: &str, options: &Options) -> Result<Arc<dyn ObjectStore>, Error> {
    install_crypto();
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in configured::<GoogleConfigKey>(url, "google_", options)? {
        builder = builder.with_config(key, value);
    }
    let store = builder
        .with_bucket_name(bucket)
        .with_client_options(client_options(None, options))
        .with_retry(inner_retry())
        .build();
    Ok(Arc::new(
        store.map_err(|error| Error::open(url, error.to_string()))?,
    ))
}

fn open_az(url: &str, container: &str, options: &Options) -> Result<Arc<dyn ObjectStore>, Error> {
    install_crypto();
    let mut builder = MicrosoftAzureBuilder::new();
    let mut endpoint = None;
    for (key, value) in configured::<AzureConfigKey>(url, "azure_", options)? {
        if key == AzureConfigKey::Endpoint {
            endpoint = Some(value.clone());
        }
        builder = builder.with_config(key, value);
    }
    let store = builder
        .with_container_name(container)
        .with_client_options(client_options(endpoint.as_deref(), options))
        .with_retry(inner_retry())
        .build();
    Ok(Arc::new(
        store.map_err(|error| Error::open(url, error.to_string()))?,
    ))
}

/// What environment and settings say in the store's own vocabulary, settings last.
fn configured<K: FromStr>(
    url: &str,
    prefix: &str,
    options: &Options,
) -> Result<Vec<(K, String)>, Error> {
    let mut configured = Vec::new();
    for (name, value) in &options.environment {
        let name = name.to_ascii_lowercase();
        if !name.starts_with(prefix) {
            continue;
        }
        if let Ok(key) = name.parse() {
            configured.push((key, value.clone()));
        }
    }
    for (name, value) in &options.settings {
        let key = name.to_ascii_lowercase().parse().map_err(|_| {
            Error::open(
                url,
                format!("the setting `{name}` is unknown to this store"),
            )
        })?;
        configured.push((key, value.clone()));
    }
    Ok(configured)
}

/// Without `https`, credentials and data travel in the clear: by default only within this machine.
fn client_options(endpoint: Option<&str>, options: &Options) -> ClientOptions {
    let allowed = options
        .environment
        .iter()
        .chain(&options.settings)
        .any(|(name, value)| {
            let name = name.to_ascii_lowercase();
            (name == "allow_http" || name.ends_with("_allow_http")) && value == "true"
        });
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(allowed || endpoint.is_some_and(is_loopback))
}

fn is_loopback(endpoint: &str) -> bool {
    let Some(authority) = endpoint.strip_prefix("http://") else {
        return false;
    };
    let authority = authority.split('/').next().unwrap_or(authority);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn inner_retry() -> RetryConfig {
    RetryConfig {
        max_retries: INNER_RETRIES,
        retry_timeout: INNER_RETRY_TIMEOUT,
        ..RetryConfig::default()
    }
}

/// Makes ring the one crypto backend of TLS, once a process. A provider that the binary has
/// installed already stays.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::debug!("a TLS crypto provider is installed already");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_env::OpenMode;

    fn open(url: &str, settings: &[(&str, &str)]) -> Result<Backend, Error> {
        open_in(&Env::real(), url, settings)
    }

    fn open_in(env: &Env, url: &str, settings: &[(&str, &str)]) -> Result<Backend, Error> {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options = Options {
            settings: settings.collect(),
            ..Options::default()
        };
        backend(url, &options, env)
    }

    #[test]
    fn every_cloud_opens_without_a_network() {
        let s3 = [
            ("AWS_ENDPOINT", "http://127.0.0.1:9"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        open("s3://bucket/some/prefix", &s3).unwrap();
        open("gs://bucket/prefix", &[("google_skip_signature", "true")]).unwrap();
        let az = [
            ("azure_storage_account_name", "account"),
            ("azure_storage_account_key", "a2V5"),
        ];
        open("az://container/prefix", &az).unwrap();
    }

    #[test]
    fn a_bad_url_is_refused_with_what_to_write() {
        for (url, says) in [
            ("/var/lib/bucket", "no scheme"),
            ("ftp://host/x", "scheme is unknown"),
            ("s3:///prefix", "no bucket"),
            ("file://relative/path", "not absolute"),
            ("memory://name/a//b", "Path"),
        ] {
            let error = open(url, &[]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_folder_is_made_only_for_who_founds_a_bucket() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("typo/bucket");
        let url = format!("file://{}", folder.display());
        let error = open(&url, &[]).unwrap_err().to_string();
        assert!(
            error.contains(&format!("no folder {}", folder.display())),
            "{error}"
        );
        assert!(!scratch.path().join("typo").exists(), "nothing was made");
        let options = Options {
            make_folder: true,
            ..Options::default()
        };
        backend(&url, &options, &Env::real()).unwrap();
        assert!(folder.is_dir());
        open(&url, &[]).unwrap();
        let file = folder.join("file");
        Env::real().files.open(&file, OpenMode::CreateNew).unwrap();
        let error = open(&format!("{url}/file"), &[]).unwrap_err().to_string();
        assert!(error.contains("is no folder"), "{error}");
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        let error = open("s3://id:secret@bucket/x", &[]).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_refused_and_an_unknown_variable_is_not() {
        let error = open("s3://bucket", &[("aws_reigon", "x")]).unwrap_err();
        assert!(error.to_string().contains("aws_reigon"), "{error}");
        let options = Options {
            environment: [
                ("AWS_PAGER", "less"),
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..Options::default()
        };
        backend("s3://bucket", &options, &Env::real()).unwrap();
    }

    #[test]
    fn an_s3_that_nobody_said_who_we_are_to_is_refused_before_it_is_asked() {
        let id = ("aws_access_key_id", "id");
        let secret = ("aws_secret_access_key", "secret");
        let token = ("aws_web_identity_token_file", "/token");
        let (env, _, _) = Env::simulated(1);
        for (settings, says) in [
            (&[][..], "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            (&[id], "AWS_SECRET_ACCESS_KEY is not"),
            (&[secret], "AWS_ACCESS_KEY_ID is not"),
            (
                &[("aws_access_key_id", ""), ("aws_secret_access_key", "")],
                "no credentials",
            ),
            (&[token], "no credentials"),
        ] {
            // Whatever the machine is that this runs on.
            let error = open_in(&env, "s3://bucket", settings)
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error}");
        }
        for settings in [
            &[id, secret][..],
            &[token, ("aws_role_arn", "arn:aws:iam::1:role/r")],
            &[("aws_container_credentials_relative_uri", "/x")],
            &[("aws_metadata_endpoint", "http://169.254.169.254")],
            &[("aws_skip_signature", "true")],
        ] {
            open_in(&env, "s3://bucket", settings).unwrap();
        }
        let id = std::path::Path::new("/sys/class/dmi/id");
        env.files.create_dir_all(id).unwrap();
        let vendor = env
            .files
            .open(&id.join("sys_vendor"), OpenMode::CreateNew)
            .unwrap();
        vendor
            .write_all_at(&[std::io::IoSlice::new(b"Amazon EC2\n")], 0)
            .unwrap();
        open_in(&env, "s3://bucket", &[]).unwrap();
        open_in(&env, "s3://bucket", &[secret]).expect_err("half of what was meant");
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for (endpoint, loopback) in [
            ("http://127.0.0.1:9000", true),
            ("http://[::1]:9000/", true),
            ("http://localhost", true),
            ("http://10.0.0.1:9000", false),
            ("http://127.0.0.1.example.com", false),
            ("https://127.0.0.1", false),
        ] {
            assert_eq!(is_loopback(endpoint), loopback, "{endpoint}");
        }
    }
}
