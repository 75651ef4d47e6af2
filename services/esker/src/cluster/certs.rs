//! `esker cluster certs`: a CA and certificates for a try, in files.
//!
//! ```text
//!   ca.pem, ca.key ──signs──► node-1.pem, node-1.key, …   agent   operator   client
//! ```
//! Whoever has `ca.key` is everybody. Run again with other nodes, the CA of the folder signs them, too.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use esker_walnode::peers::{AGENT, NODE, OPERATOR, node_name};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::run::{make_folder, read_text, write_new};
use crate::shell::Shell;

/// How much earlier than now certificates begin: clocks differ.
const EARLIER: Duration = Duration::from_secs(3600);
/// A node's number, at most.
const NUMBER_MAX: u64 = u32::MAX as u64;

/// What `esker cluster certs` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that the files go to; a CA that is there already signs what is new
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Nodes, by the number that each is to have, and the hosts that they run on
    #[arg(long, value_name = "1=HOST,2=HOST…", value_delimiter = ',')]
    nodes: Vec<String>,
    /// Hosts of agents, as clients name them
    #[arg(long, value_name = "HOST…", value_delimiter = ',')]
    agent: Vec<String>,
    /// Days until all of it expires
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// A certificate that is to be made.
struct Wanted {
    file: String,
    names: Vec<String>,
}

pub(super) fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let certificates = wanted(args).map_err(Failure::usage)?;
    let out = &args.out;
    make_folder(out).map_err(|error| io_failure(out, &error))?;
    for file in &certificates {
        for path in [path(out, &file.file, "pem"), path(out, &file.file, "key")] {
            if path.exists() {
                let text = format!("{} is there already, and is left as it is", path.display());
                return Err(Failure::usage(format!(
                    "{text}; name another folder by --out"
                )));
            }
        }
    }
    let now = Duration::from_millis(shell.env.clock.wall().0);
    let lifetime = Duration::from_secs(u64::from(args.days) * 86_400);
    let validity = (now.saturating_sub(EARLIER), now + lifetime);
    let ca = ca(out, validity)?;
    for file in &certificates {
        issue(shell, out, &ca, file, validity)?;
    }
    let files: Vec<_> = certificates.iter().map(|file| &file.file).collect();
    let answer = json!({ "folder": out.display().to_string(), "ca": "ca", "certificates": files });
    shell.answer(&answer, || text(out, &certificates, args.days))
}

/// What is to be made, by what is asked for.
fn wanted(args: &Args) -> Result<Vec<Wanted>, String> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for node in &args.nodes {
        let odd = || format!("--nodes: `{node}` is not NUMBER=HOST, such as 1=wal-1.example");
        let (number, host) = node.split_once('=').ok_or_else(odd)?;
        let number = number.parse().ok();
        let number = number.filter(|number| (1..=NUMBER_MAX).contains(number));
        let (number, host) = (number.ok_or_else(odd)?, host_of(host).ok_or_else(odd)?);
        let file = format!("node-{number}");
        if wanted.iter().any(|of| of.file == file) {
            return Err(format!("--nodes: {number} is there twice"));
        }
        let names = vec![node_name(number), NODE.to_owned(), host];
        wanted.push(Wanted { file, names });
    }
    if !args.agent.is_empty() {
        let mut names = vec![AGENT.to_owned()];
        for host in &args.agent {
            let odd = || format!("--agent: `{host}` is no host, such as agent.example or 10.0.0.1");
            names.push(host_of(host).ok_or_else(odd)?);
        }
        let file = "agent".to_owned();
        wanted.push(Wanted { file, names });
        for (file, name) in [("operator", OPERATOR), ("client", "client.esker")] {
            wanted.push(Wanted {
                file: file.to_owned(),
                names: vec![name.to_owned()],
            });
        }
    }
    match wanted.is_empty() {
        true => Err("say --nodes 1=HOST,2=HOST,… or --agent HOST, or both".to_owned()),
        false => Ok(wanted),
    }
}

/// A host without a port, which is none of the names that have a meaning of their own.
fn host_of(text: &str) -> Option<String> {
    let text = &*text.to_ascii_lowercase();
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = !text.contains(':') && !text.ends_with(".esker");
    let is_host = !text.is_empty() && text.chars().all(is_of_host) && (is_name || is_address);
    is_host.then(|| text.to_owned())
}

/// The CA of `out`, made if there is none.
fn ca(out: &Path, validity: (Duration, Duration)) -> Result<Issuer<'static, KeyPair>, Failure> {
    let (certificate, key) = (path(out, "ca", "pem"), path(out, "ca", "key"));
    let (pair, is_new) = match read_text(&key) {
        Ok(text) => {
            let pair = KeyPair::from_pem(&text);
            let odd = |error| Failure::new(format!("{} is no key: {error}", key.display()));
            (pair.map_err(odd)?, false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (KeyPair::generate().map_err(|error| failed(&error))?, true)
        }
        Err(error) => return Err(io_failure(&key, &error)),
    };
    let mut params = CertificateParams::default();
    // By its key: two CAs are never called the same.
    let hash = Sha256::digest(pair.public_key_raw());
    let name: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Esker CA for tests {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, validity);
    if is_new {
        let signed = params.self_signed(&pair).map_err(|error| failed(&error))?;
        write(&key, &pair.serialize_pem(), true)?;
        write(&certificate, &signed.pem(), false)?;
    }
    Ok(Issuer::new(params, pair))
}

fn issue(
    shell: &Shell,
    out: &Path,
    ca: &Issuer<'static, KeyPair>,
    wanted: &Wanted,
    validity: (Duration, Duration),
) -> Result<(), Failure> {
    let params = CertificateParams::new(wanted.names.clone());
    let mut params = params.map_err(|error| failed(&error))?;
    params
        .distinguished_name
        .push(DnType::CommonName, wanted.names[0].clone());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Nodes and agents call, and are called.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from(shell.env.entropy.next_u64() >> 1));
    valid(&mut params, validity);
    let pair = KeyPair::generate().map_err(|error| failed(&error))?;
    let signed = params
        .signed_by(&pair, ca)
        .map_err(|error| failed(&error))?;
    write(&path(out, &wanted.file, "key"), &pair.serialize_pem(), true)?;
    write(&path(out, &wanted.file, "pem"), &signed.pem(), false)
}

fn valid(params: &mut CertificateParams, (from, to): (Duration, Duration)) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + from, epoch + to);
}

fn path(out: &Path, name: &str, kind: &str) -> PathBuf {
    out.join(format!("{name}.{kind}"))
}

fn write(path: &Path, text: &str, secret: bool) -> Result<(), Failure> {
    write_new(path, text, secret).map_err(|error| io_failure(path, &error))
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::io(&path.display().to_string(), error)
}

fn failed(error: &rcgen::Error) -> Failure {
    Failure::new(format!("no certificate: {error}"))
}

fn text(out: &Path, certificates: &[Wanted], days: u32) -> String {
    let at = |name: &str, kind: &str| format!("{:?}", path(out, name, kind).display().to_string());
    let peers = |name: &str| {
        format!(
            "[tls.peers]\ncertificate = {}\nkey = {}\nca = {}\n",
            at(name, "pem"),
            at(name, "key"),
            at("ca", "pem")
        )
    };
    let mut text = format!(
        "certificates in {}, for {days} days and for tests: keep ca.key away from servers, or better, \
         use a CA of your own\n",
        out.display()
    );
    for Wanted { file, names } in certificates {
        let names = names.join(", ");
        let what = match file.as_str() {
            "agent" => format!(
                "in the configuration of an agent:\n{}[tls.public]\ncertificate = {}\nkey = {}\n\
                 # client_ca = {}    # if clients are to show certificates\n",
                peers(file),
                at(file, "pem"),
                at(file, "key"),
                at("ca", "pem")
            ),
            "operator" => format!(
                "for `cluster init`, `add`, `remove` and `transfer`:\n\
                 --tls-certificate {out}/{file}.pem --tls-key {out}/{file}.key\n",
                out = out.display()
            ),
            "client" => format!(
                "for clients, the last two if they are asked for certificates:\n\
                 --tls-ca {out}/ca.pem --tls-certificate {out}/{file}.pem --tls-key {out}/{file}.key\n",
                out = out.display()
            ),
            _ => format!("in the configuration of this node:\n{}", peers(file)),
        };
        text.push_str(&format!("\n{file}: {names}; {what}"));
    }
    text
}
