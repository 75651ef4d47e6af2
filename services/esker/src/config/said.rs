//! Who told what: a line of the file, a variable of the environment, a flag.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::layers::{KEYS, line_and_column, misspelt};
use super::{ConfigError, Fault, File};

/// The section whose keys are the bucket's.
const SETTINGS: &str = "object_store.settings";

/// Who told each key, last.
#[derive(Clone, Default, Debug)]
pub(super) struct Said(BTreeMap<String, String>);

impl Said {
    pub(super) fn by(&mut self, key: &str, who: impl Into<String>) {
        self.0.insert(key.to_owned(), who.into());
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// What is wrong with `key`.
    pub(super) fn fault(&self, key: &str, what: impl Into<String>) -> Fault {
        let who = self.0.get(key);
        Fault {
            by: who.map(|who| format!("{who}: ")).unwrap_or_default(),
            key: key.to_owned(),
            what: what.into(),
        }
    }

    /// Notes the keys of `file`, and gives those that there are none of.
    pub(super) fn by_file(&mut self, file: &File) -> Result<Vec<Fault>, ConfigError> {
        let parsed = DeTable::parse(&file.text).map_err(|error| misspelt(file, &error))?;
        let mut faults = Vec::new();
        self.walk(file, "", parsed.get_ref(), &mut faults);
        Ok(faults)
    }

    fn walk(&mut self, file: &File, section: &str, table: &DeTable<'_>, faults: &mut Vec<Fault>) {
        for (name, value) in table {
            let key = match section {
                "" => name.get_ref().to_string(),
                _ => format!("{section}.{}", name.get_ref()),
            };
            let (line, _) = line_and_column(&file.text, name.span().start);
            self.by(&key, format!("{}, line {line}", file.path.display()));
            match value.get_ref() {
                DeValue::Table(_) if KEYS.contains(&key.as_str()) => {}
                DeValue::Table(_) if section == SETTINGS => {}
                DeValue::Table(inner) if !inner.is_empty() => self.walk(file, &key, inner, faults),
                DeValue::Table(_) if is_section(&key) => {}
                _ if is_section(&key) => {
                    faults.push(self.fault(&key, format!("is a section: write [{key}]")));
                }
                _ if section == SETTINGS || KEYS.contains(&key.as_str()) => {}
                _ => faults.push(self.fault(&key, format!("is no key; {}", there_are(section)))),
            }
        }
    }
}

fn is_section(key: &str) -> bool {
    key == SETTINGS || !within(key).is_empty()
}

/// The keys of a section.
fn within(section: &str) -> Vec<&'static str> {
    let keys = KEYS.into_iter();
    let names = keys.filter_map(|key| key.strip_prefix(section)?.strip_prefix('.'));
    names.collect()
}

/// What a section has, for who wrote something else.
fn there_are(section: &str) -> String {
    let names = within(section);
    if !names.is_empty() {
        return format!("[{section}] has {}", names.join(", "));
    }
    let mut names: Vec<_> = KEYS.into_iter().filter(|key| !key.contains('.')).collect();
    let sections = KEYS.into_iter().filter_map(|key| key.split_once('.'));
    let sections = sections.map(|(section, _)| section);
    let mut sections: Vec<_> = sections.collect();
    sections.dedup();
    names.sort_unstable();
    format!(
        "there are {} and the sections {}",
        names.join(", "),
        sections.join(", ")
    )
}

/// The flag that sets `key`.
pub(super) fn flag(key: &'static str) -> &'static str {
    match key {
        "data_dir" => "--data-dir",
        "listen.public" => "--listen",
        "listen.metrics" => "--metrics",
        "object_store.url" => "--object-store",
        "insecure" => "--insecure",
        _ => key,
    }
}
