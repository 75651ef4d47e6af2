//! Addresses to listen at, as people write them.

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
}
