//! When certificates expire.

use std::fmt;
use std::sync::Arc;

use esker_env::Env;
use rustls::pki_types::CertificateDer;

use super::material::{Client, Made as _, Server};
use super::renewed::Renewed;
use super::{Serving, TlsError};

/// What an end of connections shows. Clones share it.
#[derive(Clone)]
pub struct Showing(Of);

#[derive(Clone)]
enum Of {
    Server(Arc<Renewed<Server>>),
    Client(Arc<Renewed<Client>>),
}

impl Showing {
    pub(super) const fn server(of: Arc<Renewed<Server>>) -> Self {
        Self(Of::Server(of))
    }

    pub(super) const fn client(of: Arc<Renewed<Client>>) -> Self {
        Self(Of::Client(of))
    }

    /// What a listener would show that serves as `serving` says. Reads its files.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used.
    pub fn at(env: &Env, serving: Serving) -> Result<Self, TlsError> {
        Ok(Self::server(Arc::new(Renewed::make(env, serving)?)))
    }

    /// When the first of the certificates expires that the next connection is shown, its own or one between
    /// it and the CA's, in seconds of the Unix epoch; `None` where none is shown. Files that have changed
    /// are read, as at a handshake.
    pub async fn not_after(&self) -> Option<i64> {
        match &self.0 {
            Of::Server(of) => of.now().await.not_after(),
            Of::Client(of) => of.now().await.not_after(),
        }
    }
}

impl fmt::Debug for Showing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Of::Server(of) => of.fmt(f),
            Of::Client(of) => of.fmt(f),
        }
    }
}

/// The first end of all of `chain`, of those that can be read.
pub(super) fn first_end(chain: &[CertificateDer<'_>]) -> Option<i64> {
    chain.iter().filter_map(|of| not_after(of)).min()
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
/// `[0]`: the version, which the oldest certificates do not have.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The last second of `certificate`, as RFC 5280 has it: `webpki` judges by it, and does not tell it.
fn not_after(certificate: &[u8]) -> Option<i64> {
    let mut whole = certificate;
    let mut signed = element(&mut whole, SEQUENCE)?;
    let mut fields = element(&mut signed, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        element(&mut fields, VERSION)?;
    }
    for before in [INTEGER, SEQUENCE, SEQUENCE] {
        element(&mut fields, before)?;
    }
    let mut validity = element(&mut fields, SEQUENCE)?;
    let (_, _) = any(&mut validity)?;
    let (kind, text) = any(&mut validity)?;
    time(kind, text)
}

/// The content of the next element, which must have this tag.
fn element<'a>(from: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, content) = any(from)?;
    (found == tag).then_some(content)
}

/// The next element of DER: its tag and its content.
fn any<'a>(from: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = from.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Files are not longer.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = length.iter().fold(0, |all, byte| {
                let all: usize = all;
                all << 8 | usize::from(*byte)
            });
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some((tag, content))
}

/// `YYMMDDHHMMSSZ` of 1950 to 2049, or `YYYYMMDDHHMMSSZ`, in seconds of the Unix epoch.
fn time(kind: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0i64, |all, digit| {
            let digit = char::from(*digit).to_digit(10)?;
            Some(all * 10 + i64::from(digit))
        })
    };
    let (year, rest) = match (kind, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year)?, rest)
        }
        _ => return None,
    };
    let fields: Option<Vec<_>> = rest.chunks(2).map(number).collect();
    let &[month, day, hour, minute, second] = fields?.as_slice() else {
        return None;
    };
    let days = days(year, month, day)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from the first of 1970 to a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March here: then a leap day is the last of its year.
    let year = if month > 2 { year } else { year - 1 };
    let (leaps, month) = (year / 4 - year / 100 + year / 400, (month + 9) % 12);
    Some(year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(end: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(1975, 1, 1);
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        let key = KeyPair::generate().expect("a key");
        let signed = params.self_signed(&key).expect("a certificate");
        signed.der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_either_of_its_forms() {
        // As `date --utc --date 2026-11-22 +%s` tells them.
        for (end, seconds) in [
            ((2026, 11, 22), 1_795_305_600),
            ((2024, 2, 29), 1_709_164_800),
            ((2000, 3, 1), 951_868_800),
            ((2049, 12, 31), 2_524_521_600),
            // From here on with four digits of the year.
            ((2050, 1, 1), 2_524_608_000),
            ((2100, 2, 28), 4_107_456_000),
            ((2100, 3, 1), 4_107_542_400),
            ((9999, 12, 31), 253_402_214_400),
        ] {
            assert_eq!(not_after(&certificate(end)), Some(seconds), "{end:?}");
        }
        assert_eq!(time(UTC_TIME, b"700101000001Z"), Some(1));
        assert_eq!(time(UTC_TIME, b"500101000000Z"), Some(-631_152_000));
    }

    #[test]
    fn the_first_of_a_chain_to_end_counts() {
        let chain = [(2040, 1, 1), (2030, 1, 1), (2035, 1, 1)];
        let chain = chain.map(|end| CertificateDer::from(certificate(end)));
        assert_eq!(first_end(&chain), Some(1_893_456_000));
        assert_eq!(first_end(&[]), None);
    }

    #[test]
    fn what_is_cut_off_or_no_time_is_no_end_and_no_panic() {
        let whole = certificate((2026, 11, 22));
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] = other[at].wrapping_add(0x7f);
            let _ = not_after(&other);
        }
        for text in [
            "",
            "Z",
            "261322000000Z",
            "2612x2000000Z",
            "261122000000",
            "20261122000000Z",
        ] {
            assert_eq!(time(UTC_TIME, text.as_bytes()), None, "{text}");
        }
    }
}
