//! Addresses to listen at and to be reached at, as people write them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Where to listen: `127.0.0.1:7070`, `[::1]:7070`, `localhost:7070`, or `7070` alone, which is of this
/// machine only, as localhost is. Other names are not looked up: what they stand for may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl Address {
    /// Reads `text`; `None` if it is no address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        let parsed = text.parse().ok().or_else(|| port.parse().ok().map(here));
        parsed.map(Self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, such as 127.0.0.1:7070, localhost:7070 or 7070")
            }

            fn visit_i64<E: Error>(self, port: i64) -> Result<Address, E> {
                let address = Address::parse(&port.to_string());
                address.ok_or_else(|| E::invalid_value(Unexpected::Signed(port), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
                let address = Address::parse(text);
                address.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Read)
    }
}

/// Where somebody else is reached: `10.0.0.1:7072`, `wal-1.example:7072`, or `7072` alone, which is on
/// this machine. Names are looked up each time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Reached(String);

impl Reached {
    /// Reads `text`; `None` if nobody is reached there.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(Address(address)) = Address::parse(text) {
            let is_there = address.port() != 0 && !address.ip().is_unspecified();
            return is_there.then(|| Self(address.to_string()));
        }
        let (host, port) = text.split_once(':')?;
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = !host.is_empty() && host.chars().all(is_of_name);
        // What has only digits and dots, and is no address, is a slip.
        let is_name = is_name && host.chars().any(|c| c.is_ascii_alphabetic());
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        is_name.then(|| Self(format!("{}:{port}", host.to_ascii_lowercase())))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Reached {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let expected = "HOST:PORT of a node, such as 10.0.0.1:7072";
        Self::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_written() {
        for (text, address) in [
            ("10.0.0.1:7070", "10.0.0.1:7070"),
            ("[::1]:7070", "[::1]:7070"),
            ("localhost:7080", "127.0.0.1:7080"),
            ("7080", "127.0.0.1:7080"),
            ("0", "127.0.0.1:0"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Address::parse(text), Some(Address(address)), "{text}");
        }
        for text in [
            "",
            "here",
            "node:7070",
            ":7070",
            "127.0.0.1",
            "65536",
            "-1",
            "localhost",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
    #[test]
    fn who_is_reached_has_a_host_and_a_port() {
        for (text, address) in [
            ("10.0.0.1:7072", "10.0.0.1:7072"),
            ("[::1]:7072", "[::1]:7072"),
            ("localhost:7072", "127.0.0.1:7072"),
            ("7072", "127.0.0.1:7072"),
            ("WAL-1.example:7072", "wal-1.example:7072"),
            ("esker_wal:1", "esker_wal:1"),
        ] {
            let reached = Reached::parse(text).map(|reached| reached.to_string());
            assert_eq!(reached.as_deref(), Some(address), "{text}");
        }
        for text in [
            "",
            "wal-1",
            "wal-1:",
            "wal-1:0",
            "wal-1:70720",
            ":7072",
            "0.0.0.0:7072",
            "[::]:7072",
            "10.0.0:7072",
            "10.0.0.256:7072",
            "http://wal-1:7072",
            "wal-1:7072/",
            "wal 1:7072",
            "0",
        ] {
            assert_eq!(Reached::parse(text), None, "{text}");
        }
    }
}
