//! A bucket that somebody else writes to: what no command named is never read, and what one named
//! and is not what was written is a loss that is told.

use bytes::Bytes;
use esker_object::{Key, Prefix};
use esker_proto::v1::error::Detail;
use esker_proto::v1::{self, Code, Durability};
use esker_tests::node::run;
use esker_tests::whole::Site;

use crate::batch::case;
use crate::world::{SECRET, TOPIC, World, is_told, told};

/// Every batch of partition 0, or why not.
async fn read(world: &World) -> Result<usize, tonic::Status> {
    let request = v1::ReadRequest {
        topic: TOPIC.into(),
        ..v1::ReadRequest::default()
    };
    let mut stream = world.log().read(request).await?.into_inner();
    let mut batches = 0;
    while let Some(reply) = stream.message().await? {
        batches += reply.batches.len();
    }
    Ok(batches)
}

/// A site with three batches in its bucket and none in its head, and the key they are under.
async fn flushed(seed: u64) -> (Site, Vec<Key>) {
    let mut site = Site::new(seed);
    let whole = site.start().await.expect("started");
    whole.create(TOPIC, 2).await;
    let world = World::over(whole).await;
    for _ in 0..3 {
        world.is_well().await;
    }
    let reply = world.admin().flush(v1::FlushRequest::default()).await;
    assert!(reply.expect("flushed").into_inner().segments > 0);
    let (objects, _) = world
        .whole
        .engine
        .store()
        .list_all(Prefix::All)
        .await
        .expect("listed");
    let segments = objects.into_iter().map(|object| object.key);
    let segments = segments
        .filter(|key| key.to_string().ends_with(".seg"))
        .collect();
    world.whole.close().await;
    (site, segments)
}

#[test]
fn a_segment_that_is_not_what_was_written_is_a_loss_that_names_it() {
    run(async {
        for (number, (what, spoil)) in [
            (
                "garbage of the same length",
                spoiled as fn(&[u8]) -> Vec<u8>,
            ),
            ("garbage of another length", |_| {
                SECRET.repeat(3).into_bytes()
            }),
            ("nothing", |_| Vec::new()),
            ("one bit", one_bit),
            ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ]
        .into_iter()
        .enumerate()
        {
            case(what);
            let (mut site, segments) = flushed(3900 + number as u64).await;
            let whole = site.start().await.expect("started");
            let world = World::over(whole).await;
            let store = world.whole.engine.store();
            for key in &segments {
                let length = store.head(key).await.expect("it is there");
                let bytes = store
                    .get_range(key, 0..length, esker_types::Lane::Tail)
                    .await;
                let bytes = Bytes::from(spoil(&bytes.expect("readable")));
                store.put(key, vec![bytes]).await.expect("put");
            }
            let (code, error) = told(&read(&world).await.expect_err("damaged"));
            assert_eq!(code, tonic::Code::DataLoss, "{error:?}");
            is_told(&error, Code::DataLoss, Durability::Durable, &[TOPIC]);
            let named = match &error.detail {
                Some(Detail::Damage(damage)) => damage.topic == TOPIC || !damage.object.is_empty(),
                _ => segments
                    .iter()
                    .any(|key| error.message.contains(&key.to_string())),
            };
            assert!(named, "{error:?}");

            // Verifying tells the same, and the rest goes on.
            let request = v1::VerifyRequest {
                depth: v1::VerifyDepth::Content.into(),
            };
            let mut stream = world
                .admin()
                .verify(request)
                .await
                .expect("begun")
                .into_inner();
            let mut found = Vec::new();
            while let Some(so_far) = stream.message().await.expect("told") {
                found.extend(so_far.found);
            }
            assert!(
                found.iter().any(|error| error.code() == Code::DataLoss),
                "{found:?}"
            );
            world.is_well().await;
            world.whole.close().await;
        }
    });
}

fn spoiled(bytes: &[u8]) -> Vec<u8> {
    SECRET.bytes().cycle().take(bytes.len()).collect()
}

fn one_bit(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // Within the first block: what lies before it is for people.
    bytes[100] ^= 1;
    bytes
}

#[test]
fn objects_that_no_command_named_are_never_read() {
    run(async {
        let (mut site, segments) = flushed(3950).await;
        let whole = site.start().await.expect("started");
        let world = World::over(whole).await;
        let store = world.whole.engine.store();
        // Names as ours would be, just after those that are there, with bytes that are none.
        for key in &segments {
            let name = key.to_string();
            let other = format!(
                "{}{}.seg",
                &name[..name.len() - 30],
                "01ARZ3NDEKTSV4RRFFQ69G5FAV"
            );
            let key = Key::parse(&other).expect("a name of ours");
            assert!(!segments.contains(&key));
            store
                .put(&key, vec![Bytes::from_static(SECRET.as_bytes())])
                .await
                .expect("put");
        }
        assert_eq!(read(&world).await.expect("readable"), 3);
        let request = v1::VerifyRequest {
            depth: v1::VerifyDepth::Content.into(),
        };
        let mut stream = world
            .admin()
            .verify(request)
            .await
            .expect("begun")
            .into_inner();
        let mut last = None;
        while let Some(so_far) = stream.message().await.expect("told") {
            assert_eq!(so_far.found, []);
            last = Some(so_far);
        }
        assert!(last.expect("told").done);
        world.is_well().await;
    });
}
