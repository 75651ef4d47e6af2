use esker_types::limits::{GIB, MIB};

use super::*;

fn file(text: &str) -> File {
    File {
        path: "esker.toml".into(),
        text: text.to_owned(),
    }
}

fn build(text: &str) -> Result<Config, ConfigError> {
    Config::build(Kind::Dev, Some(&file(text)), &BTreeMap::new(), &[])
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
    let file = file(include_str!("../../../../deploy/compose.toml"));
    let config = Config::build(Kind::Serve, Some(&file), &BTreeMap::new(), &[]);
    let config = config.expect("it is good");
    assert_eq!(config.bucket(), "s3://esker");
    assert_eq!(config.metrics().to_string(), "0.0.0.0:7071");
}

/// What is there to be copied says every key, and what is so where nobody says it.
#[test]
fn the_configuration_to_begin_with_is_the_defaults() {
    let text = include_str!("../../../../deploy/esker.toml");
    for key in KEYS {
        let name = key.rsplit('.').next().expect("a name");
        let at = [format!("\n{name} = "), format!("\n# {name} = ")];
        assert!(at.iter().any(|at| text.contains(at)), "it lacks {key}");
    }
    let none = BTreeMap::new();
    let defaults = Config::build(Kind::Serve, None, &none, &[]).expect("defaults");
    let mut told = Config::build(Kind::Serve, Some(&file(text)), &none, &[]).expect("it is good");
    assert!(std::mem::take(&mut told.cluster.is_said));
    assert_eq!(told.bucket(), defaults.bucket());
    assert_eq!(format!("{told:?}"), format!("{defaults:?}"));
    // What is only mentioned is right, too.
    let all = text
        .replace("\n# url = ", "\nurl = ")
        .replace("\n# head = ", "\nhead = ");
    let all = all.replace("\n# metrics = ", "\nmetrics = ");
    let all = ["certificate", "key", "client_ca", "ca"]
        .iter()
        .fold(all, |all, key| {
            all.replace(&format!("\n# {key} = "), &format!("\n{key} = "))
        });
    let told = Config::build(Kind::Serve, Some(&file(&all)), &none, &[]).expect("it is good");
    assert_eq!(told.head_bytes(), defaults.head_bytes());
    assert_eq!(told.metrics(), defaults.metrics());
    assert_ne!(told.bucket(), defaults.bucket());
    assert!(defaults.tls.public().is_none() && defaults.tls.peers().is_none());
    assert!(told.tls.public().is_some_and(|of| of.client_ca.is_some()));
    assert!(told.tls.peers().is_some());
}

#[test]
fn every_fault_is_told_by_its_place() {
    let text = "data_dir = 5\nroles = [\"king\"]\n[wal]\n\nfile = \"seven\"\n";
    let told = build(text).expect_err("three faults").to_string();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 4, "{told}");
    assert_eq!(lines[0], "3 things are wrong with the configuration:");
    for place in [
        "line 1: `data_dir` ",
        "line 2: `roles` ",
        "line 5: `wal.file` ",
    ] {
        assert!(told.contains(&format!("\n  esker.toml, {place}")), "{told}");
    }
    let text = "dir = 5\nwal = 7\n[walls]\ndisk = 1\n[flush]\nages = \"1s\"\n";
    let told = build(text).expect_err("four faults").to_string();
    for what in [
        "line 1: `dir` is no key; there are data_dir, insecure, roles and the sections listen, ",
        "line 2: `wal` is a section: write [wal]",
        "line 4: `walls.disk` is no key; there are",
        "line 6: `flush.ages` is no key; [flush] has bytes, age, zstd_level",
    ] {
        assert!(told.contains(&format!("\n  esker.toml, {what}")), "{told}");
    }
    let environment = BTreeMap::from([("ESKER_FLUSH_BYTES".to_owned(), "1KiB".to_owned())]);
    let flags = [
        ("listen.public", "0.0.0.0:7070".to_owned()),
        ("listen.metrics", "10.0.0.1:7071".to_owned()),
    ];
    let file = file("[wal]\ndisk = \"4MiB\"\n[upkeep]\ngrace = \"25h\"\n");
    let told = Config::build(Kind::Dev, Some(&file), &environment, &flags);
    let told = told.expect_err("out of bounds").to_string();
    for what in [
        "  esker.toml, line 2: `wal.disk` is 4 MiB; it may be 512 MiB or more",
        "  esker.toml, line 4: `upkeep.grace` is 25 h; it may be 1 s to 1 d",
        "  ESKER_FLUSH_BYTES: `flush.bytes` is 1 KiB; it may be 64 KiB to 256 MiB",
        "  --listen: `listen.public` is 0.0.0.0:7070; without TLS",
        "  --metrics: `listen.metrics` is 10.0.0.1:7071; without TLS",
    ] {
        assert!(told.contains(what), "{what}: {told}");
    }
}

#[test]
fn a_port_alone_is_of_this_machine_and_a_folder_may_be_a_number() {
    for (listen, public) in [
        ("7080", "127.0.0.1:7080"),
        ("localhost:7080", "127.0.0.1:7080"),
    ] {
        let flags = [
            ("listen.public", listen.to_owned()),
            ("data_dir", "2026".to_owned()),
        ];
        let config = Config::build(Kind::Dev, None, &BTreeMap::new(), &flags).expect("good");
        assert_eq!(config.listen.public.0.to_string(), public);
        assert_eq!(config.metrics().to_string(), "127.0.0.1:7081");
        assert_eq!(config.data_dir.to_str(), Some("2026"));
    }
    let config = build("[listen]\npublic = 7080\n").expect("good");
    assert_eq!(config.listen.public.0.to_string(), "127.0.0.1:7080");
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
    let config = Config::build(Kind::Dev, Some(&file(text)), &environment, &flags).expect("good");
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
        (
            "[wal]\nfile = \"47MiB\"",
            "`wal.file` is 47 MiB; it may be 48 MiB to 1 GiB",
        ),
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
        (
            "[listen]\npublic = \"here\"",
            "127.0.0.1:7070, localhost:7070 or 7070",
        ),
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
    let with = |key: &'static str, value: u64| flagged(key, value.to_string());
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
            let as_size = Size(wrong).to_string();
            let named_so = told.contains(&wrong.to_string()) || told.contains(&as_size);
            assert!(named != key || named_so, "{told}");
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

fn flagged(key: &'static str, value: String) -> Result<Config, ConfigError> {
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
        ("memory://", "as long as this process"),
        ("memory://b", "as long as this process"),
        ("http://bucket", "\"http://bucket\"; its scheme is unknown"),
        ("S3://bucket", "its scheme is unknown"),
        ("s3\n://bucket", "its scheme is unknown"),
        ("s3://hush@bucket", "\"s3://…\"; credentials"),
        ("s3://bucket?hush=1", "\"s3://…\"; credentials"),
        ("hush@bucket", "no scheme"),
    ] {
        let told = flagged("object_store.url", url.to_owned()).expect_err(url);
        let told = told.to_string();
        let begins = "--object-store: `object_store.url` is ";
        assert!(told.starts_with(begins), "{told}");
        for word in [
            words,
            "s3://my-bucket/prefix",
            "file:///var/lib/esker/bucket",
        ] {
            assert!(told.contains(word), "{url}: {told}");
        }
        assert!(!told.contains("hush") && !told.contains('\n'), "{told}");
    }
    for url in ["file:///b", "s3://b", "gs://b/p/q", "az://b/"] {
        let config = flagged("object_store.url", url.to_owned()).expect(url);
        assert_eq!(config.bucket(), url);
    }
}

#[test]
fn a_process_is_a_cluster_of_one_or_a_part_of_several() {
    let bucket = "[object_store]\nurl = \"file:///b\"\n";
    let nodes = "[cluster]\nnodes = [\"10.0.0.1:7072\", \"wal-2:7072\", \"7073\"]\n";
    for (roles, rest, alone, metrics) in [
        ("", String::new(), true, "127.0.0.1:7071"),
        (
            "roles = [\"agent\", \"wal\"]",
            String::new(),
            true,
            "127.0.0.1:7071",
        ),
        ("roles = [\"wal\"]", String::new(), false, "127.0.0.1:7073"),
        (
            "roles = [\"wal\"]",
            format!("{nodes}{bucket}"),
            false,
            "127.0.0.1:7073",
        ),
        (
            "roles = [\"agent\"]",
            format!("{nodes}{bucket}"),
            false,
            "127.0.0.1:7071",
        ),
        ("", format!("{nodes}{bucket}"), false, "127.0.0.1:7071"),
    ] {
        let text = format!("{roles}\n{rest}");
        let config = build(&text).expect(&text);
        assert_eq!(config.is_alone(), alone, "{text}");
        assert_eq!(config.metrics().to_string(), metrics, "{text}");
        let nodes = config.cluster.nodes.iter().map(ToString::to_string);
        let nodes: Vec<_> = nodes.collect();
        let expected = ["10.0.0.1:7072", "wal-2:7072", "127.0.0.1:7073"];
        assert_eq!(nodes, &expected[..nodes.len()], "{text}");
    }
    let peers = "roles = [\"wal\"]\n[listen]\npeers = \"127.0.0.1:0\"\n";
    assert_eq!(build(peers).expect("good").metrics().port(), 0);
}

#[test]
fn what_does_not_make_a_part_of_a_cluster_is_refused() {
    let bucket = "[object_store]\nurl = \"file:///b\"\n";
    let eight: Vec<_> = (1..9).map(|n| format!("\"wal-{n}:7072\"")).collect();
    let eight = format!("nodes = [{}]", eight.join(", "));
    for (roles, nodes, told) in [
        ("[]", "", "`roles` is empty; write [\"wal\"], "),
        ("[\"wal\", \"wal\"]", "", "`roles` has a role twice; write"),
        (
            "[\"agent\"]",
            "",
            "`cluster.nodes` is empty; an agent alone asks the WAL nodes",
        ),
        (
            "[\"agent\"]",
            "nodes = [\"wal-1\"]",
            "`cluster.nodes` is refused: ",
        ),
        (
            "[\"agent\"]",
            "nodes = [\"wal-1\"]",
            "expected HOST:PORT of a node, such as",
        ),
        (
            "[\"agent\"]",
            "nodes = \"wal-1:7072\"",
            "`cluster.nodes` is refused: ",
        ),
        (
            "[\"agent\"]",
            &eight,
            "`cluster.nodes` names 8 nodes; it may name 7",
        ),
        (
            "[\"agent\"]",
            "nodes = [\"localhost:1\", \"a:1\", \"127.0.0.1:1\"]",
            "`cluster.nodes` names 127.0.0.1:1 twice",
        ),
    ] {
        let text = format!("roles = {roles}\n{bucket}[cluster]\n{nodes}\n");
        let error = build(&text).expect_err(&text).to_string();
        assert!(
            error.contains(told) && !error.contains('\n'),
            "{text}: {error}"
        );
    }
    let nodes = "[cluster]\nnodes = [\"wal-1:7072\"]\n";
    for roles in ["[\"agent\"]", "[\"wal\", \"agent\"]"] {
        let error = build(&format!("roles = {roles}\n{nodes}")).expect_err("no bucket");
        let error = error.to_string();
        assert!(
            error.starts_with("`object_store.url` is not said; all agents"),
            "{error}"
        );
    }
}

/// Only what is listened at is looked at.
#[test]
fn peers_are_heard_on_loopback_unless_somebody_says_otherwise() {
    let open = "[listen]\npeers = \"0.0.0.0:7072\"\n";
    let rest = "[cluster]\nnodes = [\"wal-1:7072\"]\n[object_store]\nurl = \"file:///b\"\n";
    for (roles, refused) in [
        ("roles = [\"wal\"]", true),
        ("roles = [\"wal\", \"agent\"]", true),
        ("roles = [\"agent\"]", false),
    ] {
        let text = format!("{roles}\n{open}{rest}");
        let told = build(&text).map(|_| ()).map_err(|error| error.to_string());
        let what = "esker.toml, line 3: `listen.peers` is 0.0.0.0:7072; without TLS";
        assert_eq!(told.is_err(), refused, "{text}: {told:?}");
        assert!(told.err().is_none_or(|error| error.starts_with(what)));
        assert!(build(&format!("insecure = true\n{text}")).is_ok());
    }
    assert!(
        build(open).is_ok(),
        "a cluster of one does not listen there"
    );
    let public = "roles = [\"wal\"]\n[listen]\npublic = \"0.0.0.0:7070\"\n";
    assert!(build(public).is_ok(), "a WAL node has no public API");
}

#[test]
fn the_environment_names_nodes_by_commas() {
    let environment = BTreeMap::from([
        (
            "ESKER_CLUSTER_NODES".to_owned(),
            "a:7072, b:7072".to_owned(),
        ),
        ("ESKER_ROLES".to_owned(), "agent".to_owned()),
        ("ESKER_OBJECT_STORE_URL".to_owned(), "s3://b".to_owned()),
        ("ESKER_LISTEN_PEERS".to_owned(), "7172".to_owned()),
    ]);
    let config = Config::build(Kind::Serve, None, &environment, &[]).expect("good");
    let nodes = config.cluster.nodes.iter().map(ToString::to_string);
    assert_eq!(nodes.collect::<Vec<_>>(), ["a:7072", "b:7072"]);
    assert_eq!(config.listen.peers.0.port(), 7172);
    let environment = BTreeMap::from([("ESKER_CLUSTER_NODES".to_owned(), String::new())]);
    let config = Config::build(Kind::Serve, None, &environment, &[]).expect("good");
    assert!(config.is_alone());
}
