//! Nodes, agents and operators: those who are let in, and everybody else.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_env::Env;
use esker_proto::internal::node_client::NodeClient;
use esker_proto::internal::raft_client::RaftClient;
use esker_proto::internal::{AdoptRequest, HelloRequest, VoteRequest};
use esker_proto::tls::{Connecting, Own, Secure};
use esker_proto::{transport, tuning};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::process::{PATIENCE, Server, out, refused};

/// A folder with certificates, and configurations that name them.
struct Site {
    folder: PathBuf,
    certs: String,
}

impl Site {
    fn new(folder: &Path) -> Self {
        let certs = folder.join("certs").display().to_string();
        let nodes = "1=127.0.0.1,2=127.0.0.1,3=127.0.0.1";
        let hosts = "localhost,127.0.0.1";
        out(
            &[
                "cluster", "certs", "--out", &certs, "--nodes", nodes, "--agent", hosts,
            ],
            "",
        );
        let folder = folder.to_owned();
        Self { folder, certs }
    }

    fn peers(&self, of: &str) -> String {
        let certs = &self.certs;
        format!(
            "[tls.peers]\ncertificate = \"{certs}/{of}.pem\"\nkey = \"{certs}/{of}.key\"\n\
             ca = \"{certs}/ca.pem\"\n"
        )
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A node whose data are `name`'s, with the certificate of `of`.
    fn node(&self, name: &str, of: &str) -> String {
        let text = format!(
            "roles = [\"wal\"]\ndata_dir = {:?}\n[listen]\npeers = \"127.0.0.1:0\"\n\
             [wal]\ndisk = \"1GiB\"\n{}",
            self.folder.join(name),
            self.peers(of)
        );
        self.write(name, &text)
    }

    /// An agent of `nodes`, which shows the certificate of `of` to them.
    fn agent(&self, name: &str, nodes: &[String], of: &str) -> String {
        let certs = &self.certs;
        let text = format!(
            "roles = [\"agent\"]\ndata_dir = {:?}\n[listen]\npublic = \"127.0.0.1:0\"\n\
             metrics = \"127.0.0.1:0\"\n[cluster]\nnodes = {nodes:?}\ndata_shards = 2\n\
             [object_store]\nurl = \"file://{}\"\n[flush]\nage = \"1h\"\n\
             [tls.public]\ncertificate = \"{certs}/agent.pem\"\nkey = \"{certs}/agent.key\"\n{}",
            self.folder.join(name),
            self.folder.join("bucket").display(),
            self.peers(of)
        );
        self.write(name, &text)
    }

    fn serve(&self, name: &str, config: &str) -> Server {
        let log = self.folder.join(format!("{name}.log"));
        Server::start(&["serve", "--config", config], &[], &log)
    }

    fn operator(&self) -> [String; 4] {
        let [certificate, key] = ["pem", "key"].map(|of| format!("{}/operator.{of}", self.certs));
        [
            "--tls-certificate".into(),
            certificate,
            "--tls-key".into(),
            key,
        ]
    }

    /// A connection to the node at `address`, as whoever `of` names, in `certs`.
    fn channel(&self, address: &str, certs: &str, of: Option<&str>) -> Channel {
        let own = of.map(|of| Own {
            certificate: format!("{certs}/{of}.pem").into(),
            key: format!("{certs}/{of}.key").into(),
        });
        // It looks at its own certificates, too.
        let ca = Some(self.folder.join("both.pem"));
        let secure = Secure::new(&Env::real(), Connecting { own, ca }).unwrap();
        let network = Arc::new(secure.to("node.esker").unwrap());
        let endpoint = tuning::peer_endpoint(&format!("http://{address}")).unwrap();
        transport::channel(network, &endpoint)
    }
}

fn refusals(node: &Server, why: &str) -> u64 {
    node.figure(&format!("esker_peer_refusals_total{{why=\"{why}\"}}"))
}

fn handshakes(node: &Server, result: &str) -> u64 {
    node.figure(&format!(
        "esker_tls_handshakes_total{{port=\"peers\",result=\"{result}\"}}"
    ))
}

/// A call about the catalog, of `from` to the first node, as it says.
fn vote(cluster: &str, from: u64) -> Request<VoteRequest> {
    let id = |node: u64| ((1 << 32) | node).to_string();
    let mut request = Request::new(VoteRequest::default());
    for (name, text) in [
        ("esker-cluster", cluster.to_owned()),
        ("esker-from", id(from)),
        ("esker-to", id(1)),
        ("esker-disk", "7".to_owned()),
        ("esker-shard", "0".to_owned()),
    ] {
        request.metadata_mut().insert(name, text.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_cluster_lets_in_its_own_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path());
    // The first address becomes the node that its certificate is of, not the first.
    let nodes = [3, 1, 2].map(|number| {
        let name = format!("node-{number}");
        site.serve(&name, &site.node(&name, &name))
    });
    let addresses = [0, 1, 2].map(|at| nodes[at].behind("waits to be adopted, at "));
    let config = site.agent("agent", &addresses, "agent");

    // An agent founds nothing.
    let init = ["cluster", "init", "--json", "--config", &config];
    let (code, said) = refused(&init);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("it takes the certificate of an operator"),
        "{said}"
    );
    let operator = site.operator();
    let operator: Vec<_> = operator.iter().map(String::as_str).collect();
    let founded = out(&[&init[..], &operator].concat(), "");
    let founded: Value = serde_json::from_str(&founded).unwrap();
    for (at, address) in [(0, &addresses[1]), (1, &addresses[2]), (2, &addresses[0])] {
        let node = &founded["nodes"][at];
        assert_eq!(node["node"], format!("n1.{}", at + 1), "{founded}");
        assert_eq!(node["address"], **address, "{founded}");
    }

    let agent = site.serve("agent", &config);
    agent.wait_until_ready();
    let end = |of: &Server, port: &str| {
        of.figure(&format!(
            "esker_certificate_not_after_seconds{{port=\"{port}\"}}"
        ))
    };
    // All were made at once.
    let made = end(&nodes[0], "peers");
    assert_eq!([end(&agent, "public"), end(&agent, "peers")], [made; 2]);
    let endpoint = agent.behind("is ready at ");
    let ca = format!("{}/ca.pem", site.certs);
    let at = |args: &[&str], stdin| {
        out(
            &[args, &["--endpoint", &endpoint, "--tls-ca", &ca]].concat(),
            stdin,
        )
    };
    at(&["topic", "create", "t", "--partitions", "1"], "");
    at(&["produce", "t"], "one\ntwo\n");
    at(&["cluster", "flush"], "");
    assert_eq!(at(&["consume", "t"], ""), "one\ntwo\n");
    // Who looks may be an agent; who changes something is an operator.
    let status = out(&["cluster", "status", "--config", &config], "");
    assert!(status.contains("n1.3"), "{status}");
    // Who leads already need not be asked.
    let status = out(&["cluster", "status", "--json", "--config", &config], "");
    let status: Value = serde_json::from_str(&status).unwrap();
    let leads = status["shards"][0]["leader"] == "n1.2";
    let to = if leads { "n1.1" } else { "n1.2" };
    let transfer = ["cluster", "transfer", "0", to, "--config", &config];
    let (code, said) = refused(&transfer);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("it takes the certificate of an operator"),
        "{said}"
    );
    out(&[&transfer[..], &operator].concat(), "");

    // A new node becomes the one that its certificate is of; ids between are left out, none comes back.
    let more = ["--nodes", "4=127.0.0.1,6=127.0.0.1"];
    out(
        &[&["cluster", "certs", "--out", &site.certs], &more[..]].concat(),
        "",
    );
    let add = |name: &str, args: &dyn Fn(&[&str])| {
        let node = site.serve(name, &site.node(name, name));
        let address = node.behind("waits to be adopted, at ");
        let add = ["cluster", "add", &address, "--json", "--config", &config];
        args(&[&add[..], &operator].concat());
        node
    };
    let _sixth = add("node-6", &|args| {
        let added: Value = serde_json::from_str(&out(args, "")).unwrap();
        assert_eq!(added["node"], "n1.6", "{added}");
    });
    let _fourth = add("node-4", &|args| {
        let (code, said) = refused(args);
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("of node 4, and ids are given up to n1.7"),
            "{said}"
        );
    });

    let cluster = founded["cluster_id"].as_str().unwrap();
    attacks(&site, &nodes[1], &addresses[1], cluster).await;
    at(&["produce", "t"], "three\n");
    assert_eq!(at(&["consume", "t"], ""), "one\ntwo\nthree\n");
}

/// What `node`, the first, refuses, and how it counts that.
async fn attacks(site: &Site, node: &Server, address: &str, cluster: &str) {
    let other = site.folder.join("other").display().to_string();
    let made = [
        "cluster",
        "certs",
        "--out",
        &other,
        "--nodes",
        "2=127.0.0.1",
        "--agent",
        "x",
    ];
    out(&made, "");
    let both = [&site.certs, &other].map(|of| std::fs::read_to_string(format!("{of}/ca.pem")));
    let both = both.map(Result::unwrap).concat();
    std::fs::write(site.folder.join("both.pem"), both).unwrap();
    let ours = |of| site.channel(address, &site.certs, Some(of));
    let before = |why| (why, refusals(node, why));
    let once_more =
        |(why, before): (&str, u64)| assert_eq!(refusals(node, why), before + 1, "{why}");

    // With the certificate of a node, on another disk: it runs already, and has called.
    let mut second = RaftClient::new(ours("node-2"));
    let copy = second.vote(vote(cluster, 2)).await.unwrap_err();
    assert_eq!(copy.code(), Code::FailedPrecondition, "{copy}");
    assert!(copy.message().contains("one of them is a copy"), "{copy}");
    let (_, disk) = copy.message().split_once("called from disk ").unwrap();
    let (disk, _) = disk.split_once(' ').unwrap();

    // In its own name a node is heard: what it says is nonsense.
    let mut own = vote(cluster, 2);
    own.metadata_mut()
        .insert("esker-disk", disk.parse().unwrap());
    let heard = second.vote(own).await.unwrap_err();
    assert_eq!(heard.code(), Code::InvalidArgument, "{heard}");

    let seen = before("forged");
    let forged = second.vote(vote(cluster, 3)).await.unwrap_err();
    assert_eq!(forged.code(), Code::PermissionDenied, "{forged}");
    let what = "the call is of n1.3, the certificate is of node 2";
    assert_eq!(forged.message(), what);
    once_more(seen);

    let seen = before("cluster");
    let elsewhere = vote("0000000000000000000000000000feed", 2);
    let elsewhere = second.vote(elsewhere).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::FailedPrecondition, "{elsewhere}");
    assert!(elsewhere.message().contains("this node is of cluster"));
    once_more(seen);

    let seen = before("role");
    let mut agent = RaftClient::new(ours("agent"));
    let agent = agent.vote(vote(cluster, 2)).await.unwrap_err();
    assert_eq!(agent.code(), Code::PermissionDenied, "{agent}");
    once_more(seen);

    let seen = before("role");
    let mut adopting = NodeClient::new(ours("node-2"));
    let adopting = adopting.adopt(AdoptRequest::default()).await.unwrap_err();
    assert_eq!(adopting.code(), Code::PermissionDenied, "{adopting}");
    once_more(seen);

    let seen = before("role");
    let client = NodeClient::new(ours("client")).hello(HelloRequest {}).await;
    let client = client.unwrap_err();
    assert_eq!(client.code(), Code::PermissionDenied, "{client}");
    assert!(
        client.message().contains("refused to client.esker"),
        "{client}"
    );
    once_more(seen);

    let seen = before("misdirected");
    let mut third = vote(cluster, 2);
    let metadata = third.metadata_mut();
    metadata.insert("esker-to", ((1u64 << 32) | 3).to_string().parse().unwrap());
    let third = second.vote(third).await.unwrap_err();
    assert_eq!(third.code(), Code::FailedPrecondition, "{third}");
    once_more(seen);

    for (of, result) in [(Some("node-2"), "untrusted"), (None, "no_certificate")] {
        let before = handshakes(node, result);
        let mut stranger = NodeClient::new(site.channel(address, &other, of));
        stranger.hello(HelloRequest {}).await.unwrap_err();
        assert!(handshakes(node, result) > before, "{result}");
    }

    let before = handshakes(node, "plaintext");
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    // It is ended, by an alert or at once.
    let _ = plain.read_to_end(&mut Vec::new());
    assert_eq!(handshakes(node, "plaintext"), before + 1);
}

#[test]
fn a_process_is_who_its_certificate_is_of() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path());
    let node = site.serve("node-1", &site.node("node-1", "node-1"));
    let address = node.behind("waits to be adopted, at ");
    let operator = site.operator();
    let operator: Vec<_> = operator.iter().map(String::as_str).collect();
    let config = site.agent("agent", std::slice::from_ref(&address), "agent");
    out(
        &[&["cluster", "init", "--config", &config], &operator[..]].concat(),
        "",
    );
    drop(node);
    // Another node's certificate, an agent's, and a client's as an agent's.
    let nodes = [address];
    let node = |of| site.node("node-1", of);
    let configs: [(&dyn Fn() -> String, &str); 3] = [
        (
            &|| node("node-2"),
            "of node 2, and this data directory belongs to node n1.1: give it the certificate of node 1",
        ),
        (&|| node("agent"), "that of a node has one of node-1.esker"),
        (
            &|| site.agent("stranger", &nodes, "client"),
            "names client.esker: the nodes of the cluster let in",
        ),
    ];
    for (config, words) in configs {
        let (code, said) = refused(&["serve", "--config", &config()]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(words), "{said}");
    }
    // In the clear, nobody answers; how that is, is said.
    let node = site.serve("again", &site.node("node-1", "node-1"));
    node.wait_until_ready();
    let address = node.behind(", at ");
    let text = format!(
        "roles = [\"agent\"]\n[cluster]\nnodes = [{address:?}]\n[object_store]\nurl = \"file:///x\"\n"
    );
    let plain = site.write("plain", &text);
    let (code, said) = refused(&["cluster", "status", "--config", &plain]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("tls.peers"), "{said}");
    assert!(handshakes(&node, "plaintext") > 0);
}
