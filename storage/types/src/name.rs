//! Topic names as people write them. They never become object paths: ids do.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::TOPIC_NAME_BYTES_MAX;

/// A topic's name: 1 to 249 characters of `a–z A–Z 0–9 . _ -`, and neither `.` nor `..`
/// (Kafka's rule, `org.apache.kafka.common.internals.Topic`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a text is no topic name. The text itself is not repeated: it may be hostile.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("a topic name is empty; give it 1 to {TOPIC_NAME_BYTES_MAX} characters")]
    Empty,
    /// Too many bytes.
    #[error("a topic name has {bytes} bytes, the limit is {TOPIC_NAME_BYTES_MAX}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// A character outside the allowed set.
    #[error(
        "a topic name has the character U+{:04X} at byte {at}; allowed are a-z A-Z 0-9 . _ -",
        u32::from(*.character)
    )]
    Character {
        /// Where.
        at: usize,
        /// Which.
        character: char,
    },
    /// `.` or `..`.
    #[error("a topic name is `.` or `..`, which are reserved")]
    Reserved,
}

impl TopicName {
    /// Checks `text` and takes it as a name.
    ///
    /// # Errors
    /// What [`NameError`] lists.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > TOPIC_NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some((at, character)) = text.char_indices().find(|&(_, c)| !allowed(c)) {
            return Err(NameError::Character { at, character });
        }
        if text == "." || text == ".." {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\0b",
            "naïve",
            "\u{202e}abc",
            "a b",
            "a\n",
        ] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
        let long = "x".repeat(TOPIC_NAME_BYTES_MAX + 1);
        assert_eq!(
            TopicName::new(&long),
            Err(NameError::TooLong { bytes: 250 })
        );
        assert!(TopicName::new(&long[1..]).is_ok());
    }

    #[test]
    fn an_error_says_where_and_what_without_repeating_the_name() {
        let error = TopicName::new("ab/c").unwrap_err();
        assert_eq!(
            error.to_string(),
            "a topic name has the character U+002F at byte 2; allowed are a-z A-Z 0-9 . _ -"
        );
    }
}
