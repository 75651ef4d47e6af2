//! `esker serve --check`: what a start would do, and what it would fail of.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::process::{out, refused};

/// A folder with certificates of a CA and of another, and configurations that name them.
struct Site(PathBuf);

impl Site {
    fn new(folder: &Path) -> Self {
        for (ca, nodes) in [
            ("certs", "1=127.0.0.1,2=127.0.0.1"),
            ("other", "1=127.0.0.1"),
        ] {
            let at = folder.join(ca).display().to_string();
            let made = ["cluster", "certs", "--out", &at, "--nodes", nodes];
            out(&[&made[..], &["--agent", "127.0.0.1"]].concat(), "");
        }
        Self(folder.to_owned())
    }

    fn tls(&self, section: &str, certificate: &str, key: &str) -> String {
        let file = |of: &str| self.0.join(of).display().to_string();
        let (certificate, key) = (file(certificate), file(key));
        let ca = match section {
            "peers" => format!("ca = {:?}\n", file("certs/ca.pem")),
            _ => String::new(),
        };
        format!("[tls.{section}]\ncertificate = {certificate:?}\nkey = {key:?}\n{ca}")
    }

    /// A configuration whose data lie in a folder that is not there.
    fn config(&self, roles: &str, rest: &str) -> String {
        let path = self.0.join("esker.toml");
        let data = self.0.join("data");
        let text = format!("roles = [{roles}]\ndata_dir = {data:?}\n{rest}");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A certificate of the agent's key, which has expired.
    fn old_certificate(&self) -> String {
        let key = std::fs::read_to_string(self.0.join("certs/agent.key")).unwrap();
        let key = rcgen::KeyPair::from_pem(&key).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2025, 1, 1);
        let old = "certs/old.pem";
        std::fs::write(self.0.join(old), params.self_signed(&key).unwrap().pem()).unwrap();
        old.to_owned()
    }

    fn refused(&self, roles: &str, rest: &str) -> (i32, String) {
        let config = self.config(roles, rest);
        let said = refused(&["serve", "--check", "--config", &config]);
        self.is_untouched();
        said
    }

    fn is_untouched(&self) {
        let files = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["certs", "esker.toml", "other"]);
    }
}

#[test]
fn what_would_be_done_is_said_and_nothing_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path());
    // Somebody has the port: that is for a start to find out.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let tls = site.tls("peers", "certs/node-1.pem", "certs/node-1.key");
    let rest = format!("[listen]\npeers = \"{taken}\"\n[cluster]\ndata_shards = 3\n{tls}");
    let config = site.config("\"wal\"", &rest);
    let said = out(&["serve", "--check", "--config", &config], "");
    for words in [
        "roles          a WAL node\n".to_owned(),
        format!(
            "data           {}, which would be made\n",
            site.0.join("data").display()
        ),
        format!("listen.peers   {taken}, TLS\n"),
        "tls.peers      holds for ".to_owned(),
        "log            up to 8 GiB of disk, 4.00 GiB of it for heads; 3 data shards fit it\n"
            .to_owned(),
        "not looked at: whether the addresses are free".to_owned(),
    ] {
        assert!(said.contains(&words), "{words}\n{said}");
    }
    assert!(!said.contains("bucket  "), "a WAL node uses none: {said}");
    site.is_untouched();

    let config = site.config("\"wal\", \"agent\"", "");
    let said = out(&["serve", "--check", "--config", &config], "");
    assert!(said.contains("a cluster of one"), "{said}");
    let bucket = site.0.join("data/bucket");
    let bucket = format!(
        "bucket         file://{}, which would be made\n",
        bucket.display()
    );
    assert!(said.contains(&bucket), "{said}");
    site.is_untouched();
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path());
    let both = "\"wal\", \"agent\"";

    // What is no configuration is usage, as it is at a start.
    let (code, said) = site.refused(both, "[wal]\ndisk = \"1KiB\"\n");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("`wal.disk` is 1 KiB"), "{said}");

    // One port for two, another's key, another CA's certificate, shards that do not fit.
    let nodes = "[cluster]\nnodes = [\"127.0.0.1:7072\"]\ndata_shards = 256\n";
    let listen = "[listen]\npublic = \"127.0.0.1:7072\"\nmetrics = \"127.0.0.1:7073\"\n";
    let bucket = "[object_store]\nurl = \"s3://bucket\"\n[object_store.settings]\naws_no = \"1\"\n";
    let public = site.tls("public", "certs/agent.pem", "certs/client.key");
    let peers = site.tls("peers", "other/node-1.pem", "other/node-1.key");
    let wal = "[wal]\ndisk = \"512MiB\"\nfile = \"64MiB\"\n";
    let (code, said) = site.refused(
        both,
        &[listen, nodes, bucket, &public, &peers, wal].concat(),
    );
    assert_eq!(code, 1, "{said}");
    for words in [
        "5 things are wrong:",
        "`listen.peers` is 127.0.0.1:7072, which `listen.public`, 127.0.0.1:7072, has taken",
        "certs/client.key cannot be used",
        "other/node-1.pem is refused by",
        "aws_no",
        "a WAL budget of 536870912 bytes",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }

    // A file that is not there, and a certificate of nobody who is a node.
    let missing = site.tls("public", "certs/agent.pem", "certs/no.key");
    let (code, said) = site.refused(both, &missing);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("certs/no.key cannot be read"), "{said}");
    let agent = site.tls("peers", "certs/agent.pem", "certs/agent.key");
    let (code, said) = site.refused("\"wal\"", &agent);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("names agent.esker: that of a node has"),
        "{said}"
    );
    // A server starts with it, and nobody believes it.
    let old = site.old_certificate();
    let (code, said) = site.refused(both, &site.tls("public", &old, "certs/agent.key"));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("tls.public, or one between it and its CA's, has expired"),
        "{said}"
    );
    // What lies in the way of the data.
    let file = site.0.join("esker.toml").join("data").display().to_string();
    let config = site.config(both, "");
    let check = ["serve", "--check", "--config", &config, "--data-dir", &file];
    let (code, said) = refused(&check);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot be used as a folder"), "{said}");
}
