//! Settings of a topic.

mod change; // one setting, as a value and as text

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use esker_types::limits::{BATCH_BYTES_DEFAULT, STORAGE_CLASS_BYTES_MAX};

pub use change::{ConfigChange, ConfigError};

/// Settings of a topic. Every value of this type is within its bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    retention: Option<Duration>,
    retention_bytes: Option<u64>,
    max_batch_bytes: u32,
    compression: Compression,
    merge_transcode: bool,
    storage_class: Option<StorageClass>,
    deep_check: bool,
}

/// Codec that producers of a topic use unless told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Compression {
    /// Plain records.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, in Kafka's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Name of an object store's storage class: 1 to 32 characters of `A–Z 0–9 _`, such as
/// `STANDARD_IA`. Which names there are is the store's matter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageClass(Arc<str>);

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention: None,
            retention_bytes: None,
            max_batch_bytes: u32::try_from(BATCH_BYTES_DEFAULT).expect("a MiB fits"),
            compression: Compression::Zstd,
            merge_transcode: true,
            storage_class: None,
            deep_check: true,
        }
    }
}

impl TopicConfig {
    /// Age by append time after which records may go; `None` keeps them for ever.
    #[must_use]
    pub const fn retention(&self) -> Option<Duration> {
        self.retention
    }

    /// Bytes per partition above which the oldest may go; `None` is without bound.
    #[must_use]
    pub const fn retention_bytes(&self) -> Option<u64> {
        self.retention_bytes
    }

    /// Bytes of the largest batch taken, in `1..=BATCH_BYTES_MAX`.
    #[must_use]
    pub const fn max_batch_bytes(&self) -> u32 {
        self.max_batch_bytes
    }

    /// What SDK and CLI producers compress with.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// Whether merging may open compressed batches.
    #[must_use]
    pub const fn merge_transcode(&self) -> bool {
        self.merge_transcode
    }

    /// What the object store is asked for; `None` is its own default.
    #[must_use]
    pub const fn storage_class(&self) -> Option<&StorageClass> {
        self.storage_class.as_ref()
    }

    /// Whether agents open every batch on append.
    #[must_use]
    pub const fn deep_check(&self) -> bool {
        self.deep_check
    }

    /// This configuration with one setting changed.
    ///
    /// # Errors
    /// [`ConfigError::Bounds`] if the value lies outside its bounds.
    pub fn with(mut self, change: &ConfigChange) -> Result<Self, ConfigError> {
        change.check()?;
        match change {
            ConfigChange::Retention(value) => self.retention = *value,
            ConfigChange::RetentionBytes(value) => self.retention_bytes = *value,
            ConfigChange::MaxBatchBytes(value) => self.max_batch_bytes = *value,
            ConfigChange::Compression(value) => self.compression = *value,
            ConfigChange::MergeTranscode(value) => self.merge_transcode = *value,
            ConfigChange::StorageClass(value) => self.storage_class.clone_from(value),
            ConfigChange::DeepCheck(value) => self.deep_check = *value,
        }
        Ok(self)
    }

    /// All settings, in the order of [`ConfigChange::KEYS`]: as text by `Display` of each.
    #[must_use]
    pub fn settings(&self) -> [ConfigChange; ConfigChange::KEYS.len()] {
        [
            ConfigChange::Retention(self.retention),
            ConfigChange::RetentionBytes(self.retention_bytes),
            ConfigChange::MaxBatchBytes(self.max_batch_bytes),
            ConfigChange::Compression(self.compression),
            ConfigChange::MergeTranscode(self.merge_transcode),
            ConfigChange::StorageClass(self.storage_class.clone()),
            ConfigChange::DeepCheck(self.deep_check),
        ]
    }
}

impl Compression {
    const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Kafka's word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Its number in stored bytes, which is its number in a record batch's attributes.
    pub(crate) fn number(self) -> u8 {
        let at = Self::ALL.iter().position(|codec| *codec == self);
        u8::try_from(at.expect("ALL lists every codec")).expect("there are five")
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    fn parse(word: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.word() == word)
            .ok_or(ConfigError::Word {
                key: change::COMPRESSION,
                words: "none, gzip, snappy, lz4, zstd",
            })
    }
}

impl StorageClass {
    /// Checks `text` and takes it as a name.
    ///
    /// # Errors
    /// [`ConfigError::StorageClass`] if it is none.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let allowed = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
        let fits = (1..=STORAGE_CLASS_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(ConfigError::StorageClass)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StorageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
