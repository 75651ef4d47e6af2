use esker_types::{ClusterId, Incarnation, NodeId};
use esker_walnode::DiskId;
use esker_walnode::adoption::Founders;

use super::*;

fn answer(address: &str, cluster: Option<(u128, u32)>) -> Answer {
    let membership = cluster.map(|(cluster, _)| Membership {
        cluster: ClusterId(cluster),
        incarnation: Incarnation::FIRST,
        node: NodeId::new(Incarnation::FIRST, 1).expect("a small sequence"),
        data_shards: 2,
    });
    let hello = Hello {
        version: "1".to_owned(),
        disk: DiskId(1),
        membership,
        open: membership.is_some(),
        shards_begun: cluster.map_or(0, |(_, shards)| shards),
        shards_led: 0,
        members: std::collections::BTreeMap::new(),
        founders: Founders::default(),
        certified: None,
    };
    (address.to_owned(), Ok(hello))
}

fn away(address: &str) -> Answer {
    let error = CallError::Away {
        address: address.to_owned(),
        what: "nobody".to_owned(),
    };
    (address.to_owned(), Err(error))
}

#[test]
fn a_cluster_is_one_that_has_begun() {
    for (answers, expected, words) in [
        (
            vec![away("a:1"), away("b:1")],
            None,
            "no WAL node answers: a:1: nobody; b:1",
        ),
        (
            vec![away("a:1"), answer("b:1", None)],
            None,
            "wait to be adopted: run `esker cluster",
        ),
        (
            vec![answer("a:1", Some((7, 0))), answer("b:1", None)],
            None,
            "adopted, and have not begun",
        ),
        (vec![answer("a:1", Some((7, 2)))], None, "have not begun"),
        (
            vec![
                away("a:1"),
                answer("b:1", Some((7, 0))),
                answer("c:1", Some((7, 3))),
            ],
            Some(7),
            "",
        ),
    ] {
        let found = begun(&answers).expect("one cluster at most");
        let found = found.map(|of| of.cluster.0);
        assert_eq!(found, expected, "{answers:?}");
        let said = waiting(&answers);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn nodes_of_two_clusters_are_told_apart_before_either_is_believed() {
    let answers = [
        answer("a:1", Some((7, 3))),
        away("b:1"),
        answer("c:1", Some((8, 0))),
    ];
    let error = begun(&answers).expect_err("two clusters").to_string();
    assert!(error.contains("a:1 is a node of cluster"), "{error}");
    assert!(error.contains("and c:1 of cluster"), "{error}");
}
