use std::collections::BTreeMap;

use super::*;

const ASKED: Shards = Shards {
    count: 16,
    is_said: false,
};

fn node(sequence: u64) -> NodeId {
    NodeId::new(Incarnation::FIRST, sequence).expect("a small sequence")
}

/// A node that nobody has adopted.
fn fresh(address: &str, disk: u128) -> Answer {
    Answer {
        address: address.to_owned(),
        hello: Hello {
            version: "1".to_owned(),
            disk: DiskId(disk),
            membership: None,
            open: false,
            shards_begun: 0,
            shards_led: 0,
            members: BTreeMap::new(),
            founders: Founders::default(),
            certified: None,
        },
    }
}

#[test]
fn a_node_becomes_what_its_certificate_is_of() {
    let certified = |address: &str, disk, number| {
        let mut answer = fresh(address, disk);
        answer.hello.certified = number;
        answer
    };
    let nodes = |answers: &[Answer]| {
        let plan = plan(answers, ASKED).map_err(|refusal| refusal.to_string())?;
        let members = plan.members.into_iter();
        let members = members.map(|of| (of.address, of.node.sequence()));
        Ok::<Vec<_>, String>(members.collect())
    };
    let [a, b, c] = [("a:1", 10), ("b:1", 20), ("c:1", 30)];
    let of = |(address, disk): (&str, u128), number| certified(address, disk, number);
    let turned = nodes(&[of(a, Some(3)), of(b, Some(1)), of(c, Some(2))]);
    let expected = [("b:1", 1), ("c:1", 2), ("a:1", 3)];
    assert_eq!(
        turned,
        Ok(expected.map(|(at, of)| (at.to_owned(), of)).to_vec())
    );
    // Who shows none is given what nobody shows.
    let some = nodes(&[of(a, None), of(b, Some(1)), of(c, Some(7))]);
    let expected = [("b:1", 1), ("a:1", 2), ("c:1", 7)];
    assert_eq!(
        some,
        Ok(expected.map(|(at, of)| (at.to_owned(), of)).to_vec())
    );
    let same = nodes(&[of(a, Some(2)), of(b, None), of(c, Some(2))]);
    assert!(same.is_err_and(|why| why.contains("a:1 and c:1 both show a certificate of node 2")));
    let high = nodes(&[of(a, Some(NUMBER_MAX + 1))]);
    assert!(high.is_err_and(|why| why.contains("a:1 shows a certificate of node 1001")));
}

/// Nodes that were adopted to found their cluster together.
fn together<const N: usize>(mut answers: [Answer; N], with: &[(&str, u128, u64)]) -> [Answer; N] {
    let founders = with.iter().map(|(address, disk, sequence)| {
        let (address, disk) = ((*address).to_owned(), DiskId(*disk));
        (node(*sequence), Founder { address, disk })
    });
    let founders = Founders::new(founders).expect("distinct");
    let adopted = answers.iter_mut();
    for answer in adopted.filter(|answer| answer.hello.membership.is_some()) {
        answer.hello.founders = founders.clone();
    }
    answers
}

/// As [`together`] has them.
const THREE: [(&str, u128, u64); 3] = [("a:1", 10, 1), ("b:1", 20, 2), ("c:1", 30, 3)];

/// One that is node `sequence` of `cluster`, of 16 data shards.
fn adopted(address: &str, disk: u128, cluster: u128, sequence: u64) -> Answer {
    let mut answer = fresh(address, disk);
    answer.hello.open = true;
    answer.hello.membership = Some(Membership {
        cluster: ClusterId(cluster),
        incarnation: Incarnation::FIRST,
        node: node(sequence),
        data_shards: 16,
    });
    answer
}

fn begun(mut answer: Answer, shards: u32, members: &[u64]) -> Answer {
    answer.hello.shards_begun = shards;
    let members = members.iter();
    answer.hello.members = members.map(|n| (node(*n), format!("m{n}:1"))).collect();
    answer
}

/// Who becomes which node, in the order of the nodes, and who is adopted in which order.
fn numbers(plan: &Plan) -> (Vec<(&str, u64)>, Vec<&str>) {
    let members = plan.members.iter();
    let members = members.map(|of| (of.address.as_str(), of.node.sequence()));
    let adoptions = plan.adoptions(ClusterId(1)).into_iter();
    let adoptions = adoptions.map(|(member, _)| member.address.as_str());
    (members.collect(), adoptions.collect())
}

#[test]
fn new_nodes_are_numbered_as_named_and_adopted_by_disk() {
    let answers = [fresh("c:1", 30), fresh("a:1", 10), fresh("b:1", 20)];
    let plan = plan(&answers, ASKED).expect("three nodes");
    assert_eq!((plan.cluster, plan.stage), (None, Stage::Anew));
    assert_eq!(plan.data_shards, 16);
    let (members, adoptions) = numbers(&plan);
    assert_eq!(members, [("c:1", 1), ("a:1", 2), ("b:1", 3)]);
    assert_eq!(adoptions, ["a:1", "b:1", "c:1"]);
    let voters = plan.founders.voters().into_values();
    assert_eq!(voters.collect::<Vec<_>>(), ["c:1", "a:1", "b:1"]);
    let membership = plan.adoptions(ClusterId(9))[0].1;
    assert_eq!(
        (membership.cluster, membership.node),
        (ClusterId(9), node(2))
    );
}

#[test]
fn who_was_adopted_stays_who_it_is() {
    let answers = [fresh("c:1", 30), adopted("a:1", 10, 7, 1), fresh("b:1", 20)];
    let plan = plan(&together(answers, &THREE), ASKED).expect("a cluster half made");
    assert_eq!(
        (plan.cluster, plan.stage),
        (Some(ClusterId(7)), Stage::Anew)
    );
    let (members, adoptions) = numbers(&plan);
    // And the others become what they were to be, in whatever order they are named.
    assert_eq!(members, [("a:1", 1), ("b:1", 2), ("c:1", 3)]);
    assert_eq!(adoptions, ["b:1", "c:1"]);
}

#[test]
fn a_cluster_that_has_begun_is_finished_or_done() {
    let all = [1, 2, 3];
    let three = |shards: [u32; 3]| {
        let answers = [("a:1", 10, 1), ("b:1", 20, 2), ("c:1", 30, 3)];
        let answers = answers.into_iter().zip(shards);
        let answers = answers.map(|((address, disk, sequence), shards)| {
            let members: &[u64] = if shards > 0 { &all } else { &[] };
            begun(adopted(address, disk, 7, sequence), shards, members)
        });
        let answers: Vec<_> = answers.collect();
        together(<[_; 3]>::try_from(answers).expect("three"), &THREE)
    };
    for (shards, stage) in [
        ([0, 0, 0], Stage::Anew),
        ([1, 0, 0], Stage::HalfFounded),
        ([0, 16, 3], Stage::HalfFounded),
        ([17, 0, 0], Stage::Founded),
        ([17, 17, 17], Stage::Founded),
    ] {
        let plan = plan(&three(shards), ASKED).expect("all are adopted");
        assert_eq!(plan.stage, stage, "{shards:?}");
        assert_eq!(plan.adoptions(ClusterId(7)), []);
    }
    // Some of its nodes may be named, and not all.
    let plan = plan(&three([17, 17, 17])[1..], ASKED).expect("two of three");
    assert_eq!(plan.stage, Stage::Founded);
}

#[test]
fn shards_that_nobody_asked_for_are_those_that_there_are() {
    let answers = [adopted("a:1", 10, 7, 1), fresh("b:1", 20)];
    let answers = together(answers, &THREE[..2]);
    for (count, is_said, expected) in [(4, false, Some(16)), (16, true, Some(16)), (4, true, None)]
    {
        let planned = plan(&answers, Shards { count, is_said });
        let shards = planned.as_ref().map(|plan| plan.data_shards).ok();
        assert_eq!(shards, expected, "{count} {is_said}");
        if let Err(refusal) = planned {
            let said = refusal.to_string();
            assert!(said.contains("a:1 was adopted for 16"), "{said}");
            assert!(said.contains("write cluster.data_shards = 16"), "{said}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    let eight = (1..9).map(|n| fresh(&format!("n{n}:1"), n));
    let mut fewer = adopted("b:1", 20, 7, 2);
    if let Some(of) = &mut fewer.hello.membership {
        of.data_shards = 4;
    }
    let cases: Vec<(Vec<Answer>, &str)> = vec![
        (vec![], "no node is named"),
        (
            eight.collect(),
            "8 nodes are named; a cluster is founded with 7",
        ),
        (vec![fresh("a:1", 1), fresh("a:1", 2)], "a:1 is named twice"),
        (
            vec![fresh("a:1", 1), fresh("b:1", 2), fresh("c:1", 1)],
            "a:1 and c:1 show the same disk",
        ),
        (
            vec![
                adopted("a:1", 1, 7, 1),
                fresh("b:1", 2),
                adopted("c:1", 3, 8, 2),
            ],
            "a:1 belongs to cluster 00000000000000000000000000000007, and c:1 to cluster",
        ),
        (
            vec![adopted("a:1", 1, 7, 2), adopted("b:1", 2, 7, 2)],
            "a:1 and b:1 are both node n1.2 of the cluster",
        ),
        (
            vec![adopted("a:1", 10, 7, 1), fewer],
            "a:1 was adopted for 16 data shards, and 4 are asked for",
        ),
        (
            vec![begun(adopted("a:1", 1, 7, 1), 17, &[1, 2]), fresh("b:1", 2)],
            "has begun, and b:1 does not belong to it: take b:1 out",
        ),
        (
            together(
                [begun(adopted("a:1", 10, 7, 1), 1, &[1, 2]), fresh("b:1", 2)],
                &THREE[..2],
            )
            .into(),
            "and b:1 is not among them: name exactly those",
        ),
        (
            vec![
                begun(adopted("a:1", 1, 7, 1), 17, &[1, 2]),
                begun(adopted("b:1", 2, 7, 2), 17, &[1, 2]),
                adopted("c:1", 3, 7, 3),
            ],
            "c:1 is node n1.3 of cluster 00000000000000000000000000000007, which was founded without \
             it, with n1.1 at m1:1, n1.2 at m2:1",
        ),
    ];
    for (answers, expected) in cases {
        let refusal = plan(&answers, ASKED).expect_err(expected).to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
}

/// What was begun with some nodes is not gone on with with others: an id could be given twice.
#[test]
fn a_founding_goes_on_with_the_nodes_that_it_was_begun_with() {
    let half = || adopted("a:1", 10, 7, 1);
    let began = || begun(half(), 1, &[1, 2, 3]);
    let (b, c, d) = (fresh("b:1", 20), fresh("c:1", 30), fresh("d:1", 40));
    let moved = fresh("e:1", 30);
    for (answers, expected) in [
        ([half(), b.clone(), d.clone()], "and d:1 is not among them"),
        ([began(), b.clone(), d], "and d:1 is not among them"),
        // The same address, and another disk.
        (
            [half(), b.clone(), fresh("c:1", 31)],
            "and c:1 is not among them",
        ),
        // The same disk at another address.
        ([half(), b.clone(), moved], "and e:1 is not among them"),
    ] {
        let refusal = plan(&together(answers, &THREE), ASKED).expect_err(expected);
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
    let fewer = plan(&together([half(), b.clone()], &THREE), ASKED);
    let refusal = fewer.expect_err("one is missing").to_string();
    assert!(refusal.contains("and c:1 is not named"), "{refusal}");
    let more = [half(), b.clone(), c];
    let more = plan(&together(more, &THREE[..2]), ASKED);
    let refusal = more.expect_err("one more").to_string();
    assert!(refusal.contains("and c:1 is not among them"), "{refusal}");
    // Who was adopted to join founds nothing.
    let joins = plan(&[half(), b], ASKED).expect_err("it joins").to_string();
    assert!(joins.contains("`esker cluster add a:1`"), "{joins}");
}

/// Whoever comes to the first node second is refused there: it has adopted none.
#[test]
fn two_that_found_at_the_same_time_begin_at_the_same_node() {
    let answers = [fresh("a:1", 3), fresh("b:1", 1), fresh("c:1", 2)];
    let turned = [&answers[2], &answers[0], &answers[1]].map(Clone::clone);
    let first = |answers: &[Answer]| {
        let plan = plan(answers, ASKED).expect("three nodes");
        plan.adoptions(ClusterId(1))[0].0.address.clone()
    };
    assert_eq!(
        (first(&answers), first(&turned)),
        ("b:1".into(), "b:1".into())
    );
}
