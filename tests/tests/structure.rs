//! The house keeps its plan: edges between crates go down only, and each big dependency has one
//! owner. Read from `cargo metadata`, so that a new edge fails here before a reader trips on it.

#![expect(clippy::disallowed_methods, reason = "tests look at the real tree")]

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Level of each package. An edge goes from a higher level to a lower one.
const LEVELS: &[(&str, u8)] = &[
    ("esker-types", 0),
    ("esker-env", 0),
    ("esker-checker", 0),
    ("esker-record", 1),
    ("esker-object", 1),
    ("esker-cache", 1),
    ("esker-segment", 2),
    ("esker-shard", 2),
    ("esker-wal", 3),
    ("esker-log", 3),
    ("esker-proto", 4),
    ("esker-client", 5),
    ("esker-head", 5),
    ("esker-walnode", 5),
    ("esker-agent", 5),
    ("esker", 6),
    ("esker-bench", 7),
    ("esker-tests", 7),
];

/// Who may name a big dependency.
const OWNERS: &[(&str, &[&str])] = &[
    ("openraft", &["esker-wal"]),
    ("object_store", &["esker-object"]),
    ("foyer", &["esker-cache"]),
    // The store's client has its one provider installed.
    ("rustls", &["esker-object", "esker-proto"]),
    ("tokio-rustls", &["esker-proto"]),
    ("rcgen", &["esker"]),
    (
        "tonic",
        &[
            "esker-proto",
            "esker-head",
            "esker-walnode",
            "esker-agent",
            "esker-client",
            "esker",
        ],
    ),
];

/// Who must not know whom, beyond what the levels say.
const STRANGERS: &[(&str, &str)] = &[
    ("esker-shard", "tokio"),
    ("esker-segment", "tokio"),
    ("esker-record", "tokio"),
    ("esker-types", "tokio"),
    ("esker-shard", "esker-record"),
    ("esker-client", "esker-wal"),
    ("esker-client", "esker-log"),
    ("esker-head", "esker-wal"),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata of this workspace")
}

/// Edges that ship: normal and build dependencies of each package, by name.
fn edges(metadata: &Metadata) -> Vec<(String, String)> {
    let shipped = |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Build);
    metadata
        .workspace_packages()
        .iter()
        .flat_map(|package| {
            package
                .dependencies
                .iter()
                .filter(|dependency| shipped(dependency.kind))
                .map(|dependency| (package.name.to_string(), dependency.name.clone()))
        })
        .collect()
}

#[test]
fn every_package_has_a_level() {
    let levels: BTreeMap<_, _> = LEVELS.iter().copied().collect();
    let mut seen = 0;
    for package in metadata().workspace_packages() {
        assert!(
            levels.contains_key(package.name.as_str()),
            "{} has no level",
            package.name
        );
        seen += 1;
    }
    assert_eq!(seen, LEVELS.len(), "a level names a package that is gone");
}

#[test]
fn edges_go_down_only() {
    let levels: BTreeMap<_, _> = LEVELS.iter().copied().collect();
    for (from, to) in edges(&metadata()) {
        if let (Some(from_level), Some(to_level)) = (levels.get(&*from), levels.get(&*to)) {
            assert!(
                from_level > to_level,
                "{from} (L{from_level}) leans on {to} (L{to_level})"
            );
        }
    }
}

#[test]
fn each_big_dependency_has_one_owner() {
    for (from, to) in edges(&metadata()) {
        for (dependency, owners) in OWNERS {
            if to == *dependency || to.starts_with(&format!("{dependency}-")) {
                assert!(
                    owners.contains(&&*from),
                    "{from} names {to}; its owners are {owners:?}"
                );
            }
        }
    }
}

#[test]
fn strangers_stay_strangers() {
    let edges = edges(&metadata());
    for (from, to) in STRANGERS {
        let met = edges.iter().any(|(a, b)| a == from && b == to);
        assert!(!met, "{from} must not know {to}");
    }
}

/// It judges the product, so it shares no code with it, not even in its tests.
#[test]
fn the_checker_knows_nothing_of_the_product() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let checker = packages
        .iter()
        .find(|package| package.name.as_str() == "esker-checker")
        .expect("the checker is a package");
    for dependency in &checker.dependencies {
        assert!(
            !dependency.name.starts_with("esker"),
            "the checker must not know {}",
            dependency.name
        );
    }
}

#[test]
fn the_top_level_holds_what_the_plan_names() {
    const NAMED: &[&str] = &[
        "Cargo.toml",
        "services",
        "storage",
        "proto",
        "bench",
        "tests",
        "deploy",
        "README.md",
        "Cargo.lock",
        "LICENSE",
        "NOTICE",
        "SECURITY.md",
        "clippy.toml",
        "deny.toml",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "target",
        "esker-data",
    ];
    let root = metadata().workspace_root;
    for entry in std::fs::read_dir(root).expect("the workspace root") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        assert!(
            name.starts_with('.') || NAMED.contains(&&*name),
            "{name} has no place here"
        );
    }
}
