//! The suite over every store that needs no server, and how a missing server is reported.

use esker_env::Env;
use esker_object::{Options, Store, conformance};

fn open(url: &str) -> Store {
    let options = Options {
        make_folder: true,
        ..Options::default()
    };
    Store::open(url, &options, &Env::real()).expect("the URL is good")
}

#[tokio::test]
async fn memory_conforms() {
    conformance::run(&open("memory://conformance")).await;
}

#[tokio::test]
async fn memory_below_a_prefix_conforms() {
    conformance::run(&open("memory://conformance-prefix/some/where")).await;
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bucket");
    conformance::run(&open(&format!("file://{}", path.display()))).await;
}

#[tokio::test]
async fn a_fault_store_without_faults_conforms() {
    let url = "memory://conformance-faults";
    let (store, faults) = Store::open_with_faults(url, &Options::default(), &Env::real()).unwrap();
    conformance::run(&store).await;
    assert_eq!(faults.injected(), 0);
}

#[tokio::test]
async fn a_memory_bucket_is_shared_by_name_and_outlives_its_handles() {
    use bytes::Bytes;
    use esker_object::{Key, Kind};
    use esker_types::SegmentId;

    let key = Key::Probe(SegmentId(7));
    let first = open("memory://by-name/a");
    first
        .put(&key, vec![Bytes::from_static(b"x")])
        .await
        .unwrap();
    drop(first);
    assert_eq!(open("memory://by-name/a").head(&key).await.unwrap(), 1);
    for other in ["memory://by-name/b", "memory://other-name/a"] {
        let error = open(other).head(&key).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
    esker_object::forget_memory_bucket("by-name");
    assert!(open("memory://by-name/a").head(&key).await.is_err());
}

/// The connection is refused; over `https` this needs the client's TLS to be set up all the same.
#[tokio::test]
async fn an_s3_that_does_not_answer_is_unavailable_and_not_a_panic() {
    use esker_object::Kind;

    for endpoint in ["http://127.0.0.1:9", "https://127.0.0.1:9"] {
        let mut options = Options::default();
        options.budget.attempts = 1;
        for (name, value) in [
            ("aws_endpoint", endpoint),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", "id"),
            ("aws_secret_access_key", "secret"),
        ] {
            options.settings.insert(name.into(), value.into());
        }
        let store = Store::open("s3://bucket/prefix", &options, &Env::real()).unwrap();
        let error = store.probe().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert!(error.to_string().contains("`put`"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
