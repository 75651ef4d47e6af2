//! What handshakes came to, counted.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{CertificateError, Error};

/// What a handshake came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A connection.
    Done,
    /// What came was no TLS.
    Plaintext,
    /// No certificate was shown where one is asked for.
    NoCertificate,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate is not of the CA, or otherwise none.
    Untrusted,
    /// The other side refused ours.
    RefusedUs,
    /// No version of TLS, cipher or protocol in common.
    Incompatible,
    /// It took too long.
    Late,
    /// It was given up for others: there were too many at a time.
    Crowded,
    /// The connection broke, or something else.
    Broken,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Plaintext,
        Self::NoCertificate,
        Self::Expired,
        Self::Untrusted,
        Self::RefusedUs,
        Self::Incompatible,
        Self::Late,
        Self::Crowded,
        Self::Broken,
    ];

    /// Its name, as figures have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Plaintext => "plaintext",
            Self::NoCertificate => "no_certificate",
            Self::Expired => "expired",
            Self::Untrusted => "untrusted",
            Self::RefusedUs => "refused_us",
            Self::Incompatible => "incompatible",
            Self::Late => "late",
            Self::Crowded => "crowded",
            Self::Broken => "broken",
        }
    }

    pub(super) fn of(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        let Some(inner) = inner else {
            return Self::Broken;
        };
        match inner {
            Error::InvalidMessage(_) => Self::Plaintext,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::Expired,
            Error::InvalidCertificate(_) => Self::Untrusted,
            Error::AlertReceived(_) => Self::RefusedUs,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            _ => Self::Broken,
        }
    }
}

/// How many handshakes of a listener came to what, since it listens.
#[derive(Debug, Default)]
pub struct Handshakes([AtomicU64; Outcome::ALL.len()]);

impl Handshakes {
    /// How many came to `outcome`.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_place_of_its_own() {
        let handshakes = Handshakes::default();
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
            (0..=at).for_each(|_| handshakes.add(outcome));
        }
        let counts = Outcome::ALL.map(|outcome| handshakes.count(outcome));
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }
}
