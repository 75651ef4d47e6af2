//! One setting, as a value and as the text people write (`retention.ms=86400000`).

use std::fmt;
use std::time::Duration;

use esker_types::limits::{BATCH_BYTES_MAX, STORAGE_CLASS_BYTES_MAX};

use super::{Compression, StorageClass};

/// One setting and its new value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigChange {
    /// `retention.ms`: age by append time after which records may go; -1 keeps them for ever.
    /// Whole milliseconds, at most `i64::MAX` of them. Default: -1.
    Retention(Option<Duration>),
    /// `retention.bytes`: bytes per partition above which the oldest may go; -1 is without bound.
    /// At most `i64::MAX`. Default: -1.
    RetentionBytes(Option<u64>),
    /// `max_batch_bytes`: 1 to [`BATCH_BYTES_MAX`]. Default: 1 MiB.
    MaxBatchBytes(u32),
    /// `compression`: what SDK and CLI producers use. Default: `zstd`.
    Compression(Compression),
    /// `merge.transcode`: whether merging may open compressed batches. Default: true.
    MergeTranscode(bool),
    /// `storage_class`: what the object store is asked for; `default` asks for nothing.
    /// Default: `default`.
    StorageClass(Option<StorageClass>),
    /// `deep_check`: whether agents open every batch on append. Default: true.
    DeepCheck(bool),
}

/// Why a text is no setting. The text itself is not repeated: it may be hostile.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that no setting has.
    #[error("there is no such topic setting; the settings are {}", ConfigChange::KEYS.join(", "))]
    Key,
    /// A value that is no number.
    #[error("{key} is no whole number")]
    Number {
        /// Of which setting.
        key: &'static str,
    },
    /// A number outside its bounds.
    #[error("{key} is {value}, it may be {least} to {most}{or}")]
    Bounds {
        /// Of which setting.
        key: &'static str,
        /// The value.
        value: i64,
        /// The least it may be.
        least: i64,
        /// The most it may be.
        most: i64,
        /// What else it may be, as text; empty if nothing.
        or: &'static str,
    },
    /// A word that is none of those allowed.
    #[error("{key} is none of {words}")]
    Word {
        /// Of which setting.
        key: &'static str,
        /// The words there are.
        words: &'static str,
    },
    /// No name of a storage class.
    #[error(
        "storage_class is neither `default` nor 1 to {STORAGE_CLASS_BYTES_MAX} characters of \
         A-Z 0-9 _"
    )]
    StorageClass,
}

const RETENTION: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const MAX_BATCH_BYTES: &str = "max_batch_bytes";
pub(super) const COMPRESSION: &str = "compression";
const MERGE_TRANSCODE: &str = "merge.transcode";
const STORAGE_CLASS: &str = "storage_class";
const DEEP_CHECK: &str = "deep_check";

impl ConfigChange {
    /// Every key there is, in the order in which settings are listed and stored.
    pub const KEYS: [&str; 7] = [
        RETENTION,
        RETENTION_BYTES,
        MAX_BATCH_BYTES,
        COMPRESSION,
        MERGE_TRANSCODE,
        STORAGE_CLASS,
        DEEP_CHECK,
    ];

    /// Reads a setting from its key and its value as text.
    ///
    /// # Errors
    /// What [`ConfigError`] lists.
    pub fn parse(key: &str, value: &str) -> Result<Self, ConfigError> {
        let change = match key {
            RETENTION => Self::Retention(unless_minus_one(RETENTION, value)?.map(millis)),
            RETENTION_BYTES => Self::RetentionBytes(unless_minus_one(RETENTION_BYTES, value)?),
            MAX_BATCH_BYTES => Self::MaxBatchBytes(batch_bytes(number(MAX_BATCH_BYTES, value)?)?),
            COMPRESSION => Self::Compression(Compression::parse(value)?),
            MERGE_TRANSCODE => Self::MergeTranscode(boolean(MERGE_TRANSCODE, value)?),
            STORAGE_CLASS if value == "default" => Self::StorageClass(None),
            STORAGE_CLASS => Self::StorageClass(Some(StorageClass::new(value)?)),
            DEEP_CHECK => Self::DeepCheck(boolean(DEEP_CHECK, value)?),
            _ => return Err(ConfigError::Key),
        };
        change.check()?;
        Ok(change)
    }

    /// The key people write.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Retention(_) => RETENTION,
            Self::RetentionBytes(_) => RETENTION_BYTES,
            Self::MaxBatchBytes(_) => MAX_BATCH_BYTES,
            Self::Compression(_) => COMPRESSION,
            Self::MergeTranscode(_) => MERGE_TRANSCODE,
            Self::StorageClass(_) => STORAGE_CLASS,
            Self::DeepCheck(_) => DEEP_CHECK,
        }
    }

    /// Whether the value is within its bounds; a change built by hand may not be.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Retention(Some(age)) => {
                let whole = u64::try_from(age.as_millis())
                    .ok()
                    .filter(|&ms| ms <= i64::MAX as u64 && millis(ms) == *age);
                whole
                    .map(|_| ())
                    .ok_or(ConfigError::Number { key: RETENTION })
            }
            Self::RetentionBytes(Some(bytes)) => {
                i64::try_from(*bytes)
                    .map(|_| ())
                    .map_err(|_| ConfigError::Number {
                        key: RETENTION_BYTES,
                    })
            }
            Self::MaxBatchBytes(bytes) => batch_bytes(i64::from(*bytes)).map(|_| ()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retention(None) | Self::RetentionBytes(None) => f.write_str("-1"),
            Self::Retention(Some(age)) => write!(f, "{}", age.as_millis()),
            Self::RetentionBytes(Some(bytes)) => write!(f, "{bytes}"),
            Self::MaxBatchBytes(bytes) => write!(f, "{bytes}"),
            Self::Compression(codec) => f.write_str(codec.word()),
            Self::MergeTranscode(yes) | Self::DeepCheck(yes) => write!(f, "{yes}"),
            Self::StorageClass(None) => f.write_str("default"),
            Self::StorageClass(Some(class)) => f.write_str(class.as_str()),
        }
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn number(key: &'static str, value: &str) -> Result<i64, ConfigError> {
    value.parse().map_err(|_| ConfigError::Number { key })
}

fn boolean(key: &'static str, value: &str) -> Result<bool, ConfigError> {
    value.parse().map_err(|_| ConfigError::Word {
        key,
        words: "true, false",
    })
}

fn unless_minus_one(key: &'static str, value: &str) -> Result<Option<u64>, ConfigError> {
    match number(key, value)? {
        -1 => Ok(None),
        value => u64::try_from(value)
            .map(Some)
            .map_err(|_| ConfigError::Bounds {
                key,
                value,
                least: 0,
                most: i64::MAX,
                or: ", or -1 for no bound",
            }),
    }
}

fn batch_bytes(value: i64) -> Result<u32, ConfigError> {
    let most = i64::try_from(BATCH_BYTES_MAX).expect("a few MiB fit");
    if !(1..=most).contains(&value) {
        return Err(ConfigError::Bounds {
            key: MAX_BATCH_BYTES,
            value,
            least: 1,
            most,
            or: "",
        });
    }
    Ok(u32::try_from(value).expect("at most BATCH_BYTES_MAX"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicConfig;

    #[test]
    fn every_setting_survives_its_text() {
        let changes = [
            ("retention.ms", "86400000"),
            ("retention.bytes", "1073741824"),
            ("max_batch_bytes", "8388608"),
            ("compression", "lz4"),
            ("merge.transcode", "false"),
            ("storage_class", "STANDARD_IA"),
            ("deep_check", "false"),
        ];
        let mut config = TopicConfig::default();
        for (key, value) in changes {
            config = config
                .with(&ConfigChange::parse(key, value).unwrap())
                .unwrap();
        }
        let listed: Vec<_> = config
            .settings()
            .iter()
            .map(|s| (s.key(), s.to_string()))
            .collect();
        let expected: Vec<_> = changes.iter().map(|&(k, v)| (k, v.to_owned())).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn the_defaults_are_what_the_docs_say() {
        let texts: Vec<_> = TopicConfig::default()
            .settings()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            ["-1", "-1", "1048576", "zstd", "true", "default", "true"]
        );
    }

    #[test]
    fn settings_out_of_bounds_are_refused_with_the_bounds() {
        let refused = |key, value| ConfigChange::parse(key, value).unwrap_err().to_string();
        assert_eq!(
            refused("max_batch_bytes", "8388609"),
            "max_batch_bytes is 8388609, it may be 1 to 8388608"
        );
        assert_eq!(
            refused("retention.ms", "-2"),
            "retention.ms is -2, it may be 0 to 9223372036854775807, or -1 for no bound"
        );
        assert_eq!(
            refused("retention.ms", "1d"),
            "retention.ms is no whole number"
        );
        assert_eq!(
            refused("deep_check", "yes"),
            "deep_check is none of true, false"
        );
        assert_eq!(
            refused("compression", "brotli"),
            "compression is none of none, gzip, snappy, lz4, zstd"
        );
        assert!(refused("retention", "1").contains("retention.ms, retention.bytes"));
        assert!(ConfigChange::parse("storage_class", "a/b").is_err());
        assert!(ConfigChange::parse("storage_class", &"A".repeat(33)).is_err());
    }

    #[test]
    fn a_change_built_by_hand_is_checked_too() {
        let config = TopicConfig::default();
        assert!(
            config
                .clone()
                .with(&ConfigChange::MaxBatchBytes(0))
                .is_err()
        );
        assert!(
            config
                .clone()
                .with(&ConfigChange::RetentionBytes(Some(u64::MAX)))
                .is_err()
        );
        let fraction = Duration::from_micros(1500);
        assert!(
            config
                .with(&ConfigChange::Retention(Some(fraction)))
                .is_err()
        );
    }
}
