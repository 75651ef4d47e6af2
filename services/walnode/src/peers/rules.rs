//! Who may call what, on the port of the other nodes.

use super::names::Roles;

/// Who may make a call.
struct Who {
    node: bool,
    agent: bool,
    operator: bool,
}

const fn who(node: bool, agent: bool, operator: bool) -> Who {
    Who {
        node,
        agent,
        operator,
    }
}

/// Another node, in its own name.
const NODES: Who = who(true, false, false);
/// Who changes the cluster.
const OPERATORS: Who = who(false, false, true);
/// Everybody of the cluster: a node may be an agent beside it, and an operator asks for ids.
const ALL: Who = who(true, true, true);

/// Every call there is. One that is missing is nobody's.
const RULES: &[(&str, Who)] = &[
    ("/esker.internal.v1.Raft/Append", NODES),
    ("/esker.internal.v1.Raft/Vote", NODES),
    ("/esker.internal.v1.Raft/Install", NODES),
    ("/esker.internal.v1.Raft/Beat", NODES),
    ("/esker.internal.v1.Raft/Transfer", NODES),
    ("/esker.internal.v1.Raft/Compare", NODES),
    ("/esker.internal.v1.Raft/Clock", NODES),
    ("/esker.internal.v1.Head/Ask", ALL),
    ("/esker.internal.v1.Head/Fetch", ALL),
    ("/esker.internal.v1.Head/Append", ALL),
    ("/esker.internal.v1.Node/Hello", ALL),
    ("/esker.internal.v1.Node/Adopt", OPERATORS),
    ("/esker.internal.v1.Node/Found", OPERATORS),
    ("/esker.internal.v1.Members/Show", ALL),
    ("/esker.internal.v1.Members/Admit", OPERATORS),
    ("/esker.internal.v1.Members/Promote", OPERATORS),
    ("/esker.internal.v1.Members/Remove", OPERATORS),
    ("/esker.internal.v1.Members/HandOver", OPERATORS),
];

/// Whether who has `roles` may make the call at `path`; if not, what he lacks.
pub(super) fn may(path: &str, roles: Roles) -> Result<(), &'static str> {
    let Some((_, who)) = RULES.iter().find(|(call, _)| *call == path) else {
        return Err("nobody may make this call");
    };
    let is_one = who.node && roles.node.is_some()
        || who.agent && roles.agent
        || who.operator && roles.operator;
    match (is_one, who) {
        (true, _) => Ok(()),
        (false, Who { agent: true, .. }) => {
            Err("it takes the certificate of a node, an agent or an operator")
        }
        (false, Who { node: true, .. }) => Err("it takes the certificate of a node"),
        (false, _) => Err("it takes the certificate of an operator, operator.esker"),
    }
}

/// Whether the call at `path` is made in the name of a node.
pub(super) fn is_of_a_node(path: &str) -> bool {
    path.starts_with("/esker.internal.v1.Raft/")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// N, A and O may, in this order; what is not named is refused.
    const TABLE: &[(&str, &str)] = &[
        ("Raft/Append", "N"),
        ("Raft/Vote", "N"),
        ("Raft/Install", "N"),
        ("Raft/Beat", "N"),
        ("Raft/Transfer", "N"),
        ("Raft/Compare", "N"),
        ("Raft/Clock", "N"),
        ("Head/Ask", "NAO"),
        ("Head/Fetch", "NAO"),
        ("Head/Append", "NAO"),
        ("Node/Hello", "NAO"),
        ("Node/Adopt", "O"),
        ("Node/Found", "O"),
        ("Members/Show", "NAO"),
        ("Members/Admit", "O"),
        ("Members/Promote", "O"),
        ("Members/Remove", "O"),
        ("Members/HandOver", "O"),
    ];

    #[test]
    fn every_call_is_of_those_who_need_it() {
        let roles = [
            ("N", Roles::of(&["node-3.esker", "node.esker"])),
            ("A", Roles::of(&["agent.esker"])),
            ("O", Roles::of(&["operator.esker"])),
            ("", Roles::of(&["client.esker", "node.esker"])),
        ];
        for (call, expected) in TABLE {
            let path = format!("/esker.internal.v1.{call}");
            let may = roles.map(|(role, of)| if may(&path, of).is_ok() { role } else { "" });
            assert_eq!(may.concat(), *expected, "{call}");
        }
        assert!(may("/grpc.reflection.v1.ServerReflection/Any", roles[2].1).is_err());
    }

    /// Read off the descriptors: a call that is added needs a rule.
    #[test]
    fn every_call_has_a_rule() {
        let known: BTreeSet<_> = RULES.iter().map(|(path, _)| *path).collect();
        assert_eq!(known.len(), RULES.len());
        let table: BTreeSet<_> = TABLE
            .iter()
            .map(|(call, _)| format!("/esker.internal.v1.{call}"))
            .collect();
        let known: BTreeSet<_> = known.into_iter().map(str::to_owned).collect();
        assert_eq!(known, table);
        assert_eq!(known, calls());
    }

    /// The calls of every `esker/internal/v1/*.proto`.
    fn calls() -> BTreeSet<String> {
        let files = [
            include_str!("../../../../proto/esker/internal/v1/head.proto"),
            include_str!("../../../../proto/esker/internal/v1/members.proto"),
            include_str!("../../../../proto/esker/internal/v1/node.proto"),
            include_str!("../../../../proto/esker/internal/v1/raft.proto"),
        ];
        let mut calls = BTreeSet::new();
        for file in files {
            let (_, service) = file.split_once("\nservice ").expect("one in each");
            let (name, body) = service.split_once(" {").expect("a body");
            let (body, _) = body.split_once("\n}").expect("an end");
            for line in body.lines() {
                if let Some(rpc) = line.trim().strip_prefix("rpc ") {
                    let (rpc, _) = rpc.split_once('(').expect("an argument");
                    calls.insert(format!("/esker.internal.v1.{name}/{rpc}"));
                }
            }
        }
        calls
    }
}
