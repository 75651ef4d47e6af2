//! The public API.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::process::{PATIENCE, Server, out, refused};

/// Certificates for this machine, and for another CA's clients.
fn certificates(folder: &Path) -> [String; 2] {
    ["certs", "other"].map(|name| {
        let at = folder.join(name).display().to_string();
        out(
            &["cluster", "certs", "--out", &at, "--agent", "127.0.0.1"],
            "",
        );
        at
    })
}

fn dev(folder: &Path, certs: &str, client_ca: Option<&str>) -> Server {
    let data = folder.join("data").display().to_string();
    let args = [
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--data-dir",
        &data,
    ];
    let [certificate, key] = ["pem", "key"].map(|kind| format!("{certs}/agent.{kind}"));
    let mut environment = vec![
        ("ESKER_TLS_PUBLIC_CERTIFICATE", certificate.as_str()),
        ("ESKER_TLS_PUBLIC_KEY", &key),
    ];
    environment.extend(client_ca.map(|ca| ("ESKER_TLS_PUBLIC_CLIENT_CA", ca)));
    Server::start(&args, &environment, &folder.join("log"))
}

fn handshakes(server: &Server, result: &str) -> u64 {
    server.figure(&format!(
        "esker_tls_handshakes_total{{port=\"public\",result=\"{result}\"}}"
    ))
}

/// Seconds of the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[test]
fn records_go_over_tls_and_not_past_it() {
    let folder = tempfile::tempdir().unwrap();
    let [certs, other] = certificates(folder.path());
    let server = dev(folder.path(), &certs, None);
    let endpoint = server.behind("is ready at ");
    assert!(endpoint.starts_with("https://127.0.0.1:"), "{endpoint}");
    let ca = format!("{certs}/ca.pem");
    let at = ["--endpoint", &endpoint, "--tls-ca", &ca];
    let esker = |args: &[&str], stdin| out(&[args, &at].concat(), stdin);
    esker(&["topic", "create", "t", "--partitions", "2"], "");
    esker(&["produce", "t"], "one\ntwo\nthree\n");
    let mut lines: Vec<_> = esker(&["consume", "t"], "")
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
    assert!(handshakes(&server, "done") >= 3);
    let days =
        (server.figure("esker_certificate_not_after_seconds{port=\"public\"}") - now()) / 86_400;
    assert!((28..=30).contains(&days), "it holds for {days} days");

    // Its CA is not believed.
    let unbelieved = format!("{other}/ca.pem");
    for ca in [&["--tls-ca", &unbelieved][..], &[]] {
        let (code, said) = refused(&[&["status", "--endpoint", &endpoint], ca].concat());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("UnknownIssuer"), "{said}");
    }
    // It is not who is meant.
    let other_name = endpoint.replace("127.0.0.1", "localhost");
    let (code, said) = refused(&["status", "--endpoint", &other_name, "--tls-ca", &ca]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("not valid for name \"localhost\""), "{said}");
    // TLS is not spoken to it.
    let plain = endpoint.replace("https", "http");
    let (code, said) = refused(&["status", "--endpoint", &plain]);
    assert_eq!(code, 1, "{said}");
    let words = format!("speaks TLS; write {endpoint}");
    assert!(said.contains(&words), "{said}");
    // Where certificates are named nothing goes in the clear, whoever may listen there.
    let (_, said) = refused(&["status", "--endpoint", &plain, "--tls-ca", &ca]);
    assert!(said.contains("has no TLS: write https://"), "{said}");
    let plaintext = handshakes(&server, "plaintext");
    assert!(plaintext >= 1);

    let mut scan = TcpStream::connect(endpoint.trim_start_matches("https://")).unwrap();
    scan.set_read_timeout(Some(PATIENCE)).unwrap();
    scan.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // It is ended, by an alert or at once.
    let _ = scan.read_to_end(&mut answer);
    assert!(answer.len() < 16, "{answer:?}");
    assert_eq!(handshakes(&server, "plaintext"), plaintext + 1);
    esker(&["status"], "");
}

#[test]
fn clients_show_certificates_where_they_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let [certs, other] = certificates(folder.path());
    let ca = format!("{certs}/ca.pem");
    let key = format!("{certs}/agent.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let server = dev(folder.path(), &certs, Some(&ca));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains(&format!("chmod 600 {key}")), "{log}");
    let endpoint = server.behind("is ready at ");
    let at = ["status", "--endpoint", &endpoint, "--tls-ca", &ca];
    let own = |of: &str| ["pem", "key"].map(|kind| format!("{of}/client.{kind}"));
    let show = |[certificate, key]: &[String; 2]| {
        ["--tls-certificate", certificate, "--tls-key", key].map(str::to_owned)
    };
    let ours = show(&own(&certs));
    let ours: Vec<_> = ours.iter().map(String::as_str).collect();
    out(&[&at[..], &ours].concat(), "");

    let half = [&at[..], &["--tls-certificate", ours[1]]].concat();
    let (code, said) = refused(&half);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--tls-key <FILE>"), "{said}");
    let (code, said) = refused(&at);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("refuses us: "), "{said}");
    assert!(handshakes(&server, "no_certificate") >= 1);
    let both = folder.path().join("both.pem");
    let text = ["certs", "other"].map(|of| {
        let path = folder.path().join(of).join("ca.pem");
        std::fs::read_to_string(path).unwrap()
    });
    std::fs::write(&both, text.concat()).unwrap();
    let both = both.to_str().unwrap();
    let theirs = show(&own(&other));
    let theirs: Vec<_> = theirs.iter().map(String::as_str).collect();
    let at = ["status", "--endpoint", &endpoint, "--tls-ca", both];
    let (code, said) = refused(&[&at[..], &theirs].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("refuses us: "), "{said}");
    assert!(handshakes(&server, "untrusted") >= 1);
    assert_eq!(handshakes(&server, "done"), 1);
}

#[test]
fn what_speaks_no_tls_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let args = [
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--data-dir",
        &data,
    ];
    let server = Server::start(&args, &[], &folder.path().join("log"));
    let endpoint = server.behind("is ready at ");
    let (code, said) = refused(&["status", "--endpoint", &endpoint.replace("http", "https")]);
    assert_eq!(code, 1, "{said}");
    let words = format!("speaks no TLS; write {endpoint} ");
    assert!(said.contains(&words), "{said}");
}

#[test]
fn half_of_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let [certs, _] = certificates(folder.path());
    let config = folder.path().join("esker.toml");
    let path = config.to_str().unwrap();
    let data = folder.path().join("data");
    for (text, words) in [
        (
            format!("[tls.public]\ncertificate = \"{certs}/agent.pem\"\n"),
            "`tls.public.key` is not said",
        ),
        (
            format!("[tls.public]\nclient_ca = \"{certs}/ca.pem\"\n"),
            "`tls.public.certificate` is not said",
        ),
        (
            format!("[tls.peers]\ncertificate = \"{certs}/agent.pem\"\nkey = \"x\"\n"),
            "`tls.peers.ca` is not said",
        ),
        (
            "[listen]\npublic = \"0.0.0.0:0\"\n".to_owned(),
            "or say tls.public",
        ),
    ] {
        std::fs::write(&config, format!("data_dir = {data:?}\n{text}")).unwrap();
        let (code, said) = refused(&["serve", "--config", path]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(words), "{said}");
    }
    let text = format!(
        "data_dir = {data:?}\n[listen]\npublic = \"127.0.0.1:0\"\n\
         [tls.public]\ncertificate = \"{certs}/agent.pem\"\nkey = \"{certs}/client.key\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let (code, said) = refused(&["serve", "--config", path]);
    assert_eq!(code, 1, "{said}");
    let words = "agent.pem and ";
    assert!(
        said.contains(words) && said.contains("cannot be used"),
        "{said}"
    );
    assert!(!data.exists(), "nothing was made");
}
