//! Defaults, the file, the environment and flags: each over the one before.

use esker_types::limits::{
    APPEND_BUDGET_BYTES, BLOCK_BYTES, BUCKET_CHECKPOINT_AGE, COLLECT_PERIOD, DATA_SHARDS_CLUSTER,
    DATA_SHARDS_DEV, FLUSH_AGE, FLUSH_AGE_DEV, FLUSH_BYTES, GIB, HEAD_DISK_BYTES_CLUSTER,
    HEAD_DISK_BYTES_DEV, HEAD_MEMORY_BYTES, READ_BUDGET_BYTES, READ_GRACE, RETENTION_PERIOD,
    WAL_FILE_BYTES,
};
use toml::{Table, Value};

use super::{ConfigError, File, Kind};

/// Keys that the environment may set: `wal.disk` by `ESKER_WAL_DISK`.
pub(super) const KEYS: [&str; 31] = [
    "data_dir",
    "insecure",
    "listen.public",
    "listen.metrics",
    "listen.peers",
    "tls.public.certificate",
    "tls.public.key",
    "tls.public.client_ca",
    "tls.peers.certificate",
    "tls.peers.key",
    "tls.peers.ca",
    "object_store.url",
    "cluster.data_shards",
    "cluster.nodes",
    "wal.disk",
    "wal.head",
    "wal.memory",
    "wal.file",
    "flush.bytes",
    "flush.age",
    "flush.zstd_level",
    "cache.memory",
    "cache.backfill_memory",
    "cache.disk",
    "agent.append_memory",
    "agent.read_memory",
    "upkeep.checkpoint",
    "upkeep.retention",
    "upkeep.collect",
    "upkeep.grace",
    "roles",
];

pub(super) fn defaults(kind: Kind) -> Table {
    let (disk, shards, age) = match kind {
        Kind::Dev => (HEAD_DISK_BYTES_DEV, DATA_SHARDS_DEV, FLUSH_AGE_DEV),
        Kind::Serve => (HEAD_DISK_BYTES_CLUSTER, DATA_SHARDS_CLUSTER, FLUSH_AGE),
    };
    let text = format!(
        r#"
        data_dir = "./esker-data"
        roles = ["wal", "agent"]
        insecure = false
        [listen]
        public = "127.0.0.1:7070"
        peers = "127.0.0.1:7072"
        [tls.public]
        [tls.peers]
        [object_store]
        settings = {{}}
        [cluster]
        data_shards = {shards}
        nodes = []
        [wal]
        disk = {disk}
        memory = {HEAD_MEMORY_BYTES}
        file = {WAL_FILE_BYTES}
        [flush]
        bytes = {FLUSH_BYTES}
        age = "{age}ms"
        zstd_level = 1
        [cache]
        memory = {cache}
        backfill_memory = {backfill}
        disk = {cache_disk}
        [agent]
        append_memory = {APPEND_BUDGET_BYTES}
        read_memory = {READ_BUDGET_BYTES}
        [upkeep]
        checkpoint = "{checkpoint}s"
        retention = "{retention}s"
        collect = "{collect}s"
        grace = "{grace}s"
        "#,
        age = age.as_millis(),
        cache = 192 * BLOCK_BYTES,
        backfill = 64 * BLOCK_BYTES,
        cache_disk = 4 * GIB,
        checkpoint = BUCKET_CHECKPOINT_AGE.as_secs(),
        retention = RETENTION_PERIOD.as_secs(),
        collect = COLLECT_PERIOD.as_secs(),
        grace = READ_GRACE.as_secs(),
    );
    text.parse().expect("the defaults are TOML")
}

/// Puts `over` over `under`, table by table.
pub(super) fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Sets `key`, dotted, to what `text` says: a number or a truth value if it is one, a list of words
/// for roles and nodes, else a text.
pub(super) fn set(table: &mut Table, key: &str, text: &str) {
    let value = match key {
        "roles" | "cluster.nodes" => {
            let words = text.split(',').map(str::trim);
            let words = words.filter(|word| !word.is_empty());
            Value::Array(words.map(Value::from).collect())
        }
        // A folder may be called 2026.
        "data_dir" | "object_store.url" => Value::String(text.to_owned()),
        path if path.starts_with("tls.") => Value::String(text.to_owned()),
        _ => match (text.parse::<i64>(), text.parse::<bool>()) {
            (Ok(number), _) => Value::Integer(number),
            (_, Ok(truth)) => Value::Boolean(truth),
            _ => Value::String(text.to_owned()),
        },
    };
    put(table, key, value);
}

/// Puts `value` at `key`, dotted.
pub(super) fn put(mut table: &mut Table, mut key: &str, value: Value) {
    while let Some((section, rest)) = key.split_once('.') {
        let section = table
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(section) = section else {
            return;
        };
        (table, key) = (section, rest);
    }
    table.insert(key.to_owned(), value);
}

/// What stands at `key`, dotted.
pub(super) fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

/// What is wrong with the text of `file`, and where. What stands there may be a secret.
pub(super) fn misspelt(file: &File, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start);
    let (line, column) = line_and_column(&file.text, at);
    ConfigError::Text {
        path: file.path.clone(),
        line,
        column,
        what: error.message().replace('\n', " "),
    }
}

/// Where byte `at` of `text` stands, both from one on.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
    (line, column)
}

/// Settings of the store that are no texts: their values would be told with what is wrong.
pub(super) fn no_texts(table: &Table) -> Vec<String> {
    let settings = get(table, "object_store.settings").and_then(Value::as_table);
    let settings = settings.into_iter().flatten();
    let wrong = settings.filter(|(_, value)| !value.is_str());
    wrong
        .map(|(key, _)| format!("object_store.settings.{key}"))
        .collect()
}
