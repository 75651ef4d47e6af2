//! Files, and what is made of them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_env::{Clock, Env, OpenMode};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use super::expiry::first_end;
use super::{ALPN, CERTIFICATES_MAX, Connecting, FILE_BYTES_MAX, Own, Serving, TlsError};

/// What files may become: an end of a connection.
pub(super) trait Made: Sized + Send + Sync + 'static {
    /// Which files.
    type From: Clone + Send + Sync + 'static;

    /// All paths of `from`.
    fn paths(from: &Self::From) -> Vec<PathBuf>;

    /// Makes it of the files, now.
    fn make(env: &Env, from: &Self::From) -> Result<Self, TlsError>;

    /// The names of its own certificate.
    fn names(&self) -> &Arc<[String]>;

    /// When the first of the certificates that it shows expires, in seconds of the Unix epoch.
    fn not_after(&self) -> Option<i64>;
}

/// What a listener goes by.
pub(super) struct Server {
    pub(super) config: Arc<ServerConfig>,
    names: Arc<[String]>,
    not_after: Option<i64>,
}

/// What who connects goes by.
pub(super) struct Client {
    pub(super) config: Arc<ClientConfig>,
    names: Arc<[String]>,
    not_after: Option<i64>,
}

impl Made for Server {
    type From = Serving;

    fn paths(from: &Serving) -> Vec<PathBuf> {
        let own = [&from.own.certificate, &from.own.key];
        own.into_iter().chain(&from.client_ca).cloned().collect()
    }

    fn make(env: &Env, from: &Serving) -> Result<Self, TlsError> {
        let shown = Shown::read(env, &from.own)?;
        let builder = ServerConfig::builder_with_details(provider(), WallTime::of(env));
        let builder = builder
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| shown.unfit(&error))?;
        let builder = match &from.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(verifier(env, ca)?),
        };
        let (chain, key) = (shown.chain.clone(), shown.key.clone_key());
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| shown.unfit(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            not_after: first_end(&shown.chain),
            names: shown.names,
        })
    }

    fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    fn not_after(&self) -> Option<i64> {
        self.not_after
    }
}

impl Made for Client {
    type From = Connecting;

    fn paths(from: &Connecting) -> Vec<PathBuf> {
        let own = from.own.iter().flat_map(|own| [&own.certificate, &own.key]);
        own.chain(&from.ca).cloned().collect()
    }

    fn make(env: &Env, from: &Connecting) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_details(provider(), WallTime::of(env));
        let builder = builder
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("ring has ciphers of both");
        let roots = match &from.ca {
            Some(ca) => roots(env, ca)?,
            None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        };
        let builder = builder.with_root_certificates(roots);
        let (mut config, names, not_after) = match &from.own {
            None => (builder.with_no_client_auth(), Arc::default(), None),
            Some(own) => {
                let shown = Shown::read(env, own)?;
                if let Some(ca) = &from.ca {
                    shown.of(env, ca)?;
                }
                let (chain, key) = (shown.chain.clone(), shown.key.clone_key());
                let config = builder.with_client_auth_cert(chain, key);
                let config = config.map_err(|error| shown.unfit(&error))?;
                (config, shown.names, first_end(&shown.chain))
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            names,
            not_after,
        })
    }

    fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    fn not_after(&self) -> Option<i64> {
        self.not_after
    }
}

/// A certificate, and what stands behind it.
struct Shown {
    own: Own,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    names: Arc<[String]>,
}

impl Shown {
    fn read(env: &Env, own: &Own) -> Result<Self, TlsError> {
        let chain = certificates(env, &own.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(env, &own.key)?);
        let key = key.map_err(|error| TlsError::NoPem {
            path: own.key.clone(),
            wanted: "a private key",
            what: error.to_string(),
        })?;
        let names = names(&chain[0]).into();
        let own = own.clone();
        Ok(Self {
            own,
            chain,
            key,
            names,
        })
    }

    /// Makes sure that `ca` believes it.
    fn of(&self, env: &Env, ca: &Path) -> Result<(), TlsError> {
        let now = WallTime::of(env).current_time();
        let now = now.expect("the clock tells the time");
        let verifier = verifier(env, ca)?;
        let (first, between) = self.chain.split_first().expect("it is not empty");
        let verified = verifier.verify_client_cert(first, between, now);
        verified.map(|_| ()).map_err(|error| TlsError::Stranger {
            certificate: self.own.certificate.clone(),
            ca: ca.to_owned(),
            what: error.to_string(),
        })
    }

    fn unfit(&self, error: &rustls::Error) -> TlsError {
        TlsError::Unfit {
            certificate: self.own.certificate.clone(),
            key: self.own.key.clone(),
            what: error.to_string(),
        }
    }
}

/// What `certificate` names its holder.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let read = EndEntityCert::try_from(certificate);
    let names = read.iter().flat_map(|read| read.valid_dns_names());
    names.map(str::to_ascii_lowercase).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn verifier(env: &Env, ca: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(roots(env, ca)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    verifier.build().map_err(|error| TlsError::NoCa {
        path: ca.to_owned(),
        what: error.to_string(),
    })
}

fn roots(env: &Env, ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(env, ca)? {
        roots.add(certificate).map_err(|error| TlsError::NoCa {
            path: ca.to_owned(),
            what: error.to_string(),
        })?;
    }
    Ok(roots)
}

/// The certificates in a file, at least one.
fn certificates(env: &Env, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let no_pem = |what: String| TlsError::NoPem {
        path: path.to_owned(),
        wanted: "certificates",
        what,
    };
    let text = read(env, path)?;
    let all = CertificateDer::pem_slice_iter(&text).take(CERTIFICATES_MAX + 1);
    let all: Result<Vec<_>, _> = all.collect();
    let all = all.map_err(|error| no_pem(error.to_string()))?;
    match all.len() {
        0 => Err(no_pem("there is none".to_owned())),
        count if count > CERTIFICATES_MAX => Err(TlsError::TooMany {
            path: path.to_owned(),
        }),
        _ => Ok(all),
    }
}

/// What the files at `paths` hold, as one number: another number, other files.
pub(super) fn mark(env: &Env, paths: &[PathBuf]) -> Result<u64, TlsError> {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        read(env, path)?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn read(env: &Env, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = env.files.open(path, OpenMode::Read).map_err(failed)?;
    let bytes = file.size().map_err(failed)?;
    let within = usize::try_from(bytes).ok();
    let Some(length) = within.filter(|bytes| *bytes <= FILE_BYTES_MAX) else {
        let path = path.to_owned();
        return Err(TlsError::TooLong { path, bytes });
    };
    let mut text = vec![0; length];
    let read = file.read_at(&mut text, 0).map_err(failed)?;
    text.truncate(read);
    Ok(text)
}

/// The time by which certificates are judged.
#[derive(Debug)]
struct WallTime(Arc<dyn Clock>);

impl WallTime {
    fn of(env: &Env) -> Arc<Self> {
        Arc::new(Self(Arc::clone(&env.clock)))
    }
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since = std::time::Duration::from_millis(self.0.wall().0);
        Some(UnixTime::since_unix_epoch(since))
    }
}
