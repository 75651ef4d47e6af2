use esker_types::limits::{GIB, MIB};

use super::*;

fn build(text: &str) -> Result<Config, ConfigError> {
    Config::build(Kind::Dev, Some(text), &BTreeMap::new(), &[])
}

#[test]
fn nothing_said_gives_the_defaults() {
    let config = Config::build(Kind::Dev, None, &BTreeMap::new(), &[]).expect("defaults");
    assert_eq!(config.wal.disk.0, GIB);
    assert_eq!(config.head_bytes(), GIB / 2);
    assert_eq!(config.cluster.data_shards, 4);
    let bucket = config.bucket();
    assert!(bucket.starts_with("file:///"), "{bucket}");
    assert!(bucket.ends_with("/esker-data/bucket"), "{bucket}");
    let config = Config::build(Kind::Serve, None, &BTreeMap::new(), &[]).expect("defaults");
    assert_eq!(
        (config.wal.disk.0, config.cluster.data_shards),
        (8 * GIB, 16)
    );
}

#[test]
fn the_configuration_for_containers_is_taken() {
    let text = include_str!("../../../../deploy/esker.toml");
    let config = Config::build(Kind::Serve, Some(text), &BTreeMap::new(), &[]);
    let config = config.expect("it is good");
    assert_eq!(config.bucket(), "s3://esker");
    assert_eq!(config.metrics().to_string(), "0.0.0.0:7071");
}

#[test]
fn flags_go_over_the_environment_over_the_file() {
    let text = "[wal]\ndisk = \"2GiB\"\n[flush]\nage = \"1s\"\nbytes = 100000\n";
    let environment = BTreeMap::from([
        ("ESKER_WAL_DISK".to_owned(), "3GiB".to_owned()),
        ("ESKER_FLUSH_BYTES".to_owned(), "200000".to_owned()),
        ("ESKER_ROLES".to_owned(), "wal, agent".to_owned()),
    ]);
    let flags = [("flush.bytes", "300000".to_owned())];
    let config = Config::build(Kind::Dev, Some(text), &environment, &flags).expect("good");
    assert_eq!(config.wal.disk.0, 3 * GIB);
    assert_eq!(config.flush.age.0.as_secs(), 1);
    assert_eq!(config.flush.bytes.0, 300_000);
    assert_eq!(config.roles, [Role::Wal, Role::Agent]);
}

#[test]
fn what_is_wrong_is_refused_in_one_line_that_names_the_key() {
    for (text, named) in [
        ("dataa_dir = \"x\"", "dataa_dir"),
        ("[wal]\ndiskk = 1", "diskk"),
        ("[wal]\ndisk = 0", "wal.disk"),
        ("[wal]\ndisk = -1", "-1"),
        ("[wal]\nfile = \"47MiB\"", "wal.file"),
        ("[wal]\ndisk = \"1GiBB\"", "1GiBB"),
        ("[agent]\nappend_memory = \"95MiB\"", "agent.append_memory"),
        ("[agent]\nread_memory = \"63MiB\"", "agent.read_memory"),
        ("[flush]\nage = \"0s\"", "flush.age"),
        ("[upkeep]\ngrace = \"0s\"", "upkeep.grace"),
        ("[upkeep]\ncollect = \"25h\"", "upkeep.collect"),
        ("[flush]\nzstd_level = 20", "flush.zstd_level"),
        ("a = 1\n\n  b = = 2", "line 3, column 7"),
        ("[cluster]\ndata_shards = 0", "cluster.data_shards"),
        ("roles = []", "roles"),
        ("roles = [\"king\"]", "king"),
        ("[listen]\npublic = \"0.0.0.0:7070\"", "listen.public"),
        ("[listen]\npublic = \"here\"", "socket"),
        ("= 1", "key"),
    ] {
        let error = build(text).expect_err(text).to_string();
        assert!(error.contains(named), "{text}: {error}");
        assert!(!error.contains('\n'), "{text}: {error}");
    }
    assert!(build("insecure = true\n[listen]\npublic = \"0.0.0.0:7070\"").is_ok());
}

/// It goes to terminals and logs.
#[test]
fn what_is_wrong_is_said_without_the_text_of_its_line() {
    for wrong in [
        "aws_secret_access_key = \"hush/+1",
        "aws_secret_access_key = hush/+1\"",
        "aws_secret_access_key = hush",
        "aws_secret_access_key = \"hush\\q\"",
        "aws_secret_access_key = \"a\" \"hush\"",
        "aws_secret_access_key \"hush\"",
        "aws_secret_access_key: hush",
        "aws_secret_access_key = [\"hush\"]",
        "aws_secret_access_key = \"\"\"hush",
        "aws_secret_access_key = 'hush",
        "aws_secret_access_key = { hush = 1 }",
    ] {
        let text = format!("[object_store.settings]\naws_region = \"r\"\n{wrong}\n");
        let error = build(&text).expect_err(wrong).to_string();
        assert!(!error.contains("hush"), "{wrong}: {error}");
        assert!(
            error.contains("line ") || error.contains("aws_secret_access_key"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
    let numbers = "[object_store.settings]\naws_secret_access_key = 471147\n";
    let error = build(numbers).expect_err("no text").to_string();
    assert!(!error.contains("471147"), "{error}");
    for text in [
        "object_store = \"hush\"",
        "[object_store]\nsettings = \"hush\"",
    ] {
        let error = build(text).expect_err(text).to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}

/// Every key with a size or a time: the least it may be and the most, and what lies beyond.
#[test]
fn every_bound_is_told_by_its_key_and_value() {
    let most = u64::MAX / 2;
    let sizes = [
        ("wal.disk", 8 * (64 << 20), most),
        ("wal.head", 1 << 20, GIB / 2),
        ("wal.memory", 1 << 20, most),
        ("wal.file", 48 << 20, GIB / 8),
        ("flush.bytes", 64 << 10, 256 << 20),
        ("flush.zstd_level", 1, 19),
        ("cluster.data_shards", 1, 1024),
        ("cache.memory", 32 << 20, most),
        ("cache.backfill_memory", 32 << 20, most),
        ("cache.disk", 16 << 20, most),
        ("agent.append_memory", 96 << 20, 2 * GIB),
        ("agent.read_memory", 64 << 20, 2 * GIB),
    ];
    let with = |key: &str, value: u64| flagged(key, value.to_string());
    for (key, least, most) in sizes {
        for good in [least, most] {
            assert!(with(key, good).is_ok(), "{key} = {good}");
        }
        for wrong in [least - 1, most + 1, 0] {
            if (key, wrong) == ("cache.disk", 0) {
                assert!(with(key, 0).is_ok(), "0 is no disk");
                continue;
            }
            let told = with(key, wrong).expect_err(key).to_string();
            // One depends on the other: as many files as there must be, no longer fit the disk.
            let named = if (key, wrong) == ("wal.file", GIB / 8 + 1) {
                "wal.disk"
            } else {
                key
            };
            assert!(
                told.contains(&format!("`{named}` is ")),
                "{key} = {wrong}: {told}"
            );
            assert!(told.contains("it may be "), "{told}");
            assert!(named != key || told.contains(&wrong.to_string()), "{told}");
        }
    }
    for (key, least, most, wrong) in [
        ("flush.age", "10ms", "1h", ["9ms", "61m"]),
        ("upkeep.checkpoint", "1s", "1h", ["999ms", "61m"]),
        ("upkeep.retention", "1s", "1h", ["999ms", "61m"]),
        ("upkeep.collect", "1s", "1d", ["999ms", "25h"]),
        ("upkeep.grace", "1s", "1d", ["999ms", "25h"]),
    ] {
        for good in [least, most] {
            assert!(flagged(key, good.to_owned()).is_ok(), "{key} = {good}");
        }
        for wrong in wrong.into_iter().chain(["0s", "0ms"]) {
            let told = flagged(key, wrong.to_owned()).expect_err(key).to_string();
            assert!(
                told.contains(&format!("`{key}` is ")),
                "{key} = {wrong}: {told}"
            );
        }
    }
}

fn flagged(key: &str, value: String) -> Result<Config, ConfigError> {
    Config::build(Kind::Dev, None, &BTreeMap::new(), &[(key, value)])
}

#[test]
fn the_caches_bounds_are_the_caches_own() {
    use esker_cache::BlockCache;
    let least = 32 * MIB;
    assert!(BlockCache::<()>::in_memory(least, least).is_ok());
    assert!(BlockCache::<()>::in_memory(least - 1, least).is_err());
    assert!(BlockCache::<()>::in_memory(least, least - 1).is_err());
}

#[test]
fn a_url_that_is_none_is_refused_with_examples_and_without_secrets() {
    for (url, words) in [
        ("", "no scheme"),
        ("/var/lib/bucket", "no scheme"),
        ("file:/var/lib/bucket", "no scheme"),
        (
            "file://bucket",
            "\"file://bucket\"; its path is not absolute",
        ),
        ("s3://", "\"s3://\"; it names no bucket"),
        ("gs:///prefix", "it names no bucket"),
        ("memory://", "it names no bucket"),
        ("http://bucket", "\"http://bucket\"; its scheme is unknown"),
        ("S3://bucket", "its scheme is unknown"),
        ("s3\n://bucket", "its scheme is unknown"),
        ("s3://hush@bucket", "\"s3://…\"; credentials"),
        ("s3://bucket?hush=1", "\"s3://…\"; credentials"),
        ("hush@bucket", "no scheme"),
    ] {
        let told = flagged("object_store.url", url.to_owned()).expect_err(url);
        let told = told.to_string();
        assert!(told.starts_with("`object_store.url` is "), "{told}");
        for word in [
            words,
            "s3://my-bucket/prefix",
            "file:///var/lib/esker/bucket",
        ] {
            assert!(told.contains(word), "{url}: {told}");
        }
        assert!(!told.contains("hush") && !told.contains('\n'), "{told}");
    }
    for url in ["file:///b", "s3://b", "gs://b/p/q", "az://b/", "memory://b"] {
        let config = flagged("object_store.url", url.to_owned()).expect(url);
        assert_eq!(config.bucket(), url);
    }
}
