//! What is told of TLS, whole or not at all.

use std::path::{Path, PathBuf};

use esker_proto::tls::{Connecting, Own, Serving};

use super::bounds::Beyond;
use super::sections::{Tls, TlsPeers, TlsPublic};

/// What nodes and agents show each other.
#[derive(Clone, Debug)]
pub(crate) struct PeerTls {
    pub(crate) own: Own,
    pub(crate) ca: PathBuf,
}

impl PeerTls {
    /// For a listener: whoever calls shows a certificate.
    pub(crate) fn serving(self) -> Serving {
        Serving {
            own: self.own,
            client_ca: Some(self.ca),
        }
    }

    /// For who calls.
    pub(crate) fn connecting(self) -> Connecting {
        Connecting {
            own: Some(self.own),
            ca: Some(self.ca),
        }
    }
}

impl Tls {
    /// What the public API shows and asks for, if it has TLS.
    pub(crate) fn public(&self) -> Option<Serving> {
        let TlsPublic {
            certificate,
            key,
            client_ca,
        } = self.public.clone();
        Some(Serving {
            own: own(certificate, key)?,
            client_ca,
        })
    }

    /// What nodes and agents show each other, if they do.
    pub(crate) fn peers(&self) -> Option<PeerTls> {
        let TlsPeers {
            certificate,
            key,
            ca,
        } = self.peers.clone();
        let own = own(certificate, key)?;
        Some(PeerTls { own, ca: ca? })
    }

    /// Keys that others make no sense without.
    pub(super) fn missing(&self) -> Vec<Beyond> {
        let (public, peers) = (&self.public, &self.peers);
        let is_public = public.certificate.is_some() || public.key.is_some();
        let is_public = is_public || public.client_ca.is_some();
        let is_peers = peers.certificate.is_some() || peers.key.is_some() || peers.ca.is_some();
        let whole = "write all of tls.peers: certificate, key and ca; or none, for no TLS";
        let both = "write certificate and key of tls.public; or nothing of it, for no TLS";
        let keys = [
            (
                "tls.public.certificate",
                is_public,
                &public.certificate,
                both,
            ),
            ("tls.public.key", is_public, &public.key, both),
            ("tls.peers.certificate", is_peers, &peers.certificate, whole),
            ("tls.peers.key", is_peers, &peers.key, whole),
            ("tls.peers.ca", is_peers, &peers.ca, whole),
        ];
        let missing = keys
            .into_iter()
            .filter(|(_, needed, path, _)| *needed && path.is_none());
        missing
            .map(|(key, _, _, what)| (key, format!("is not said; {what}")))
            .collect()
    }

    /// The files of private keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Path> {
        let keys = [&self.public.key, &self.peers.key];
        keys.into_iter().flatten().map(PathBuf::as_path)
    }
}

fn own(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Option<Own> {
    Some(Own {
        certificate: certificate?,
        key: key?,
    })
}
