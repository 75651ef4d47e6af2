//! The environment: which of its variables set a key, and which only look as if they did.

use std::collections::BTreeMap;

use super::Fault;
use super::layers::KEYS;

/// What all of ours begin with.
const OURS: &str = "ESKER_";
/// What the commands, the tests and what builds this read.
const NO_KEYS: [&str; 23] = [
    "ESKER_AGENT_SECONDS",
    "ESKER_BINARY",
    "ESKER_BLESS",
    "ESKER_ENDPOINT",
    "ESKER_KILLS",
    "ESKER_LOG",
    "ESKER_MINIO",
    "ESKER_MUTATED_FRAMES",
    "ESKER_NAMESPACES",
    "ESKER_OLD_BINARY",
    "ESKER_OLD_CLUSTER_BINARY",
    "ESKER_PYTHON",
    "ESKER_ROUNDS",
    "ESKER_SAMPLE_DIR",
    "ESKER_SEED",
    "ESKER_SEEDS",
    "ESKER_SNAPSHOT_SECONDS",
    "ESKER_STRACE",
    "ESKER_TLS_CA",
    "ESKER_TLS_CERTIFICATE",
    "ESKER_TLS_KEY",
    "ESKER_TOOLS",
    "ESKER_VOLUME",
];
/// Letters that a slip of the fingers gets wrong: two that changed places are two.
const SLIP_MAX: usize = 2;
/// A longer name is no slip.
const NAME_BYTES_MAX: usize = 64;

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{OURS}{}", key.replace('.', "_").to_uppercase())
}

/// Variables that are all but one of ours are refused; those that only begin alike are said: who runs
/// a service of our name elsewhere may have got them from there.
pub(super) fn misspelt(environment: &BTreeMap<String, String>) -> Vec<Fault> {
    let ours: Vec<_> = KEYS.into_iter().map(variable).collect();
    let begin_alike = environment.keys().filter(|name| name.starts_with(OURS));
    let mut faults = Vec::new();
    for name in begin_alike {
        if ours.contains(name) || NO_KEYS.contains(&name.as_str()) {
            continue;
        }
        let slips = ours.iter().map(|key| (slips(name, key), key)).min();
        match slips {
            Some((slips, near)) if slips <= SLIP_MAX => faults.push(Fault {
                by: "environment: ".to_owned(),
                key: name.clone(),
                what: format!("sets no key; write {near}, or unset it"),
            }),
            _ => tracing::warn!(%name, "this variable sets no key, and is left alone"),
        }
    }
    faults
}

/// Letters to put in, leave out or replace to make `two` of `one`.
fn slips(one: &str, two: &str) -> usize {
    if one.len().max(two.len()) > NAME_BYTES_MAX {
        return usize::MAX;
    }
    let mut before: Vec<usize> = (0..=two.len()).collect();
    for (at, letter) in one.bytes().enumerate() {
        let mut row = vec![at + 1];
        for (to, other) in two.bytes().enumerate() {
            let replaced = before[to] + usize::from(letter != other);
            row.push(replaced.min(before[to + 1] + 1).min(row[to] + 1));
        }
        before = row;
    }
    before[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str) -> Vec<String> {
        let environment = [(name.to_owned(), "x".to_owned())].into();
        let faults = misspelt(&environment);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_slip_is_refused_with_what_was_meant() {
        for (name, meant) in [
            ("ESKER_WAL_DSIK", "ESKER_WAL_DISK"),
            ("ESKER_WAL_DISKS", "ESKER_WAL_DISK"),
            ("ESKER_FLUSHAGE", "ESKER_FLUSH_AGE"),
            ("ESKER_CLUSTER_DATASHARDS", "ESKER_CLUSTER_DATA_SHARDS"),
        ] {
            let expected = format!("environment: `{name}` sets no key; write {meant}, or unset it");
            assert_eq!(told(name), [expected]);
        }
    }

    /// An orchestrator gives the last three to whoever runs beside a service of our name.
    #[test]
    fn what_is_no_slip_of_a_key_is_let_be() {
        for key in KEYS {
            assert!(told(&variable(key)).is_empty(), "{key}");
        }
        for name in NO_KEYS.into_iter().chain([
            "PATH",
            "ESKER",
            "ESKER_",
            "ESKER_PORT",
            "ESKER_SERVICE_HOST",
            "ESKER_PORT_7070_TCP_ADDR",
        ]) {
            assert!(told(name).is_empty(), "{name}: {:?}", told(name));
        }
    }
}
