//! TLS over any connection of env's network.
//!
//! ```text
//!   Listener ─► Secured ── handshakes, many at a time ──► Connection, names ─► transport::incoming
//!                  └ Renewed ◄─ PEM files
//!   Network ──► Secure ─── a handshake ─────────────────► Connection ────────► transport::channel
//! ```
//! TLS 1.2 and 1.3, by ring, and nothing of an earlier session is ever trusted: each connection shows
//! its certificates anew. The files are read again when they have changed, so a certificate is replaced
//! without a restart.

use std::path::PathBuf;
use std::time::Duration;

mod connecting; // a network whose connections are secured
mod error; // what is wrong with the files
mod expiry; // when certificates expire
mod handshakes; // what handshakes came to, counted
mod listening; // a listener that secures its connections
mod material; // files, and what is made of them
mod renewed; // made anew when the files change

pub use connecting::{NO_TLS, Secure};
pub use error::TlsError;
pub use expiry::Showing;
pub use handshakes::{Handshakes, Outcome};
pub use listening::Secured;

/// ALPN of HTTP/2, which is all that is spoken here.
const ALPN: &[u8] = b"h2";
/// Handshakes of one listener at a time; for one more the one that lasts longest is given up.
pub const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take a server.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(1);
/// How long it may take who connects.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often the files are looked at, at a handshake.
pub const RENEW_PERIOD: Duration = Duration::from_secs(10);
/// Bytes of a file of certificates or of a key.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Certificates in one file.
pub const CERTIFICATES_MAX: usize = 1024;

/// Who one is: paths of PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// The certificate, and those between it and the CA's behind it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a listener shows and asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Serving {
    /// What it shows.
    pub own: Own,
    /// Certificates of the CAs that clients' certificates must be of; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

/// What who connects shows and believes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Connecting {
    /// What it shows if it is asked.
    pub own: Option<Own>,
    /// Certificates of the CAs that it believes; `None` for those that browsers believe, which are
    /// compiled in: a container may have none.
    pub ca: Option<PathBuf>,
}
