//! The suite over S3's protocol: signed requests to another implementation's server, on loopback.

use std::net::SocketAddr;

use esker_env::Env;
use esker_object::{Kind, Options, Store, conformance};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;

const BUCKET: &str = "bucket";

/// Serves `folder` with one empty bucket until the runtime ends.
async fn serve(folder: &TempDir) -> SocketAddr {
    let bucket = folder.path().join(BUCKET);
    let files = Env::real().files;
    files
        .create_dir_all(&bucket)
        .expect("a folder for the bucket");
    let root = s3s_fs::FileSystem::new(folder.path()).expect("a folder for the server");
    let mut service = S3ServiceBuilder::new(root);
    service.set_auth(SimpleAuth::from_single("id", "secret"));
    let service: S3Service = service.build();
    #[expect(clippy::disallowed_methods, reason = "the server is not ours")]
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let http = Builder::new(TokioExecutor::new());
                // A connection that breaks is the client's to notice.
                http.serve_connection(TokioIo::new(socket), service)
                    .await
                    .ok();
            });
        }
    });
    address
}

fn open(address: SocketAddr, prefix: &str, secret: &str) -> Store {
    let mut options = Options::default();
    for (name, value) in [
        ("AWS_ENDPOINT", format!("http://{address}").as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ] {
        options.environment.insert(name.into(), value.into());
    }
    Store::open(&format!("s3://{BUCKET}/{prefix}"), &options, &Env::real()).expect("a good URL")
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_below_a_prefix_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(serve(&folder).await, "some/prefix", "secret");
    conformance::run(&store).await;
    assert_eq!(store.counters().retried, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_denied_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(serve(&folder).await, "", "wrong");
    let error = store.probe().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert_eq!(store.counters().requests(), 1);
}
