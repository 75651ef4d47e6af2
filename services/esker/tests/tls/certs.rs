//! `esker cluster certs`.

use std::os::unix::fs::PermissionsExt as _;

use crate::process::{out, refused};

#[test]
fn certificates_are_made_and_never_made_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("certs");
    let at = at.to_str().unwrap();
    let made = [
        "cluster",
        "certs",
        "--out",
        at,
        "--nodes",
        "1=wal-1,2=10.0.0.2",
        "--agent",
        "localhost",
    ];
    let said = out(&made, "");
    for words in [
        "node-2: node-2.esker, node.esker, 10.0.0.2; ",
        "operator.esker",
        "[tls.public]\ncertificate = ",
        "for tests",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let mut files: Vec<_> = std::fs::read_dir(at).unwrap().map(Result::unwrap).collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let names = files.iter().map(|file| file.file_name().into_string());
    let names: Vec<_> = names.map(Result::unwrap).collect();
    let expected = ["agent", "ca", "client", "node-1", "node-2", "operator"];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|name| [format!("{name}.key"), format!("{name}.pem")])
        .collect();
    assert_eq!(names, expected);
    for file in &files {
        let mode = file.metadata().unwrap().permissions().mode();
        let name = file.file_name().into_string().unwrap();
        assert_eq!(
            mode & 0o077 == 0,
            name.ends_with(".key"),
            "{name}: {mode:o}"
        );
    }
    let read = |name: &str| std::fs::read(format!("{at}/{name}")).unwrap();
    let (ca, one) = (read("ca.pem"), read("node-1.pem"));
    let (code, said) = refused(&made);
    assert_eq!(code, 2);
    assert!(said.contains("node-1.pem is there already"), "{said}");
    // Another node of the same CA.
    out(&["cluster", "certs", "--out", at, "--nodes", "3=wal-3"], "");
    assert!(read("ca.pem") == ca && read("node-1.pem") == one);
    read("node-3.key");
}

#[test]
fn what_makes_no_certificate_is_usage() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    for (args, words) in [
        (&[][..], "say --nodes"),
        (&["--nodes", "wal-1"], "`wal-1` is not NUMBER=HOST"),
        (&["--nodes", "0=wal-1"], "`0=wal-1` is not NUMBER=HOST"),
        (
            &["--nodes", "1=wal:7072"],
            "`1=wal:7072` is not NUMBER=HOST",
        ),
        (&["--nodes", "1=a,1=b"], "1 is there twice"),
        // It would be an operator by its name.
        (
            &["--agent", "operator.esker"],
            "`operator.esker` is no host",
        ),
        (&["--agent", "a", "--days", "0"], "--days"),
    ] {
        let (code, said) = refused(&[&["cluster", "certs", "--out", at], args].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(std::fs::read_dir(at).unwrap().count(), 0);
    }
}
