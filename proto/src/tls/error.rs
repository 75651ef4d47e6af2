//! What is wrong with the files.

use std::io;
use std::path::PathBuf;

use super::{CERTIFICATES_MAX, FILE_BYTES_MAX};

/// Why files do not make an end of a connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is far too long.
    #[error(
        "{path} has {bytes} bytes, the limit is {FILE_BYTES_MAX}: name a PEM file",
        path = path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
    },
    /// There are too many certificates in it.
    #[error("{path} has more than {CERTIFICATES_MAX} certificates", path = path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// It is no PEM, or has something else in it.
    #[error("{path} is no PEM file with {wanted}: {what}", path = path.display())]
    NoPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Certificate and key do not fit, or cannot be used.
    #[error("{certificate} and {key} cannot be used: {what}", certificate = certificate.display(), key = key.display())]
    Unfit {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The certificates of a CA cannot be used.
    #[error("{path} cannot be used as certificates of a CA: {what}", path = path.display())]
    NoCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// One's own certificate is not of the CA that the others' are to be of, or has expired.
    #[error(
        "{certificate} is refused by {ca} itself: {what}; the others would refuse it, too",
        certificate = certificate.display(), ca = ca.display()
    )]
    Stranger {
        /// The file with the certificate.
        certificate: PathBuf,
        /// That with the CA's.
        ca: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A certificate that replaces another is somebody else's.
    #[error(
        "{certificate} was of {before}, and is of {now}: a process keeps its names while it runs",
        certificate = certificate.display(), before = before.join(", "), now = now.join(", ")
    )]
    Renamed {
        /// The file with the certificate.
        certificate: PathBuf,
        /// Its names before.
        before: Vec<String>,
        /// Its names now.
        now: Vec<String>,
    },
}
