//! Names in certificates, and what they stand for.

/// Whoever is a node of the cluster goes by this, too.
pub const NODE: &str = "node.esker";
/// An agent.
pub const AGENT: &str = "agent.esker";
/// Who founds and changes the cluster.
pub const OPERATOR: &str = "operator.esker";

/// What a node goes by, by its number in the cluster.
#[must_use]
pub fn node_name(number: u64) -> String {
    format!("node-{number}.esker")
}

/// Who somebody is, by the names that he has proved.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Roles {
    /// A node, by its number.
    pub node: Option<u64>,
    /// An agent.
    pub agent: bool,
    /// An operator.
    pub operator: bool,
}

impl Roles {
    /// Of who goes by `names`. Who goes by the names of two nodes is neither.
    #[must_use]
    pub fn of<N: AsRef<str>>(names: &[N]) -> Self {
        let goes_by = |name: &str| names.iter().any(|of| of.as_ref() == name);
        let mut numbers: Vec<_> = names.iter().filter_map(|of| number(of.as_ref())).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self {
            node: match numbers.as_slice() {
                [one] => Some(*one),
                _ => None,
            },
            agent: goes_by(AGENT),
            operator: goes_by(OPERATOR),
        }
    }
}

/// The number of the node that goes by `name`.
fn number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("node-")?.strip_suffix(".esker")?;
    let number = number.parse().ok()?;
    // One way to write it: `node-+1` and `node-01` are nobody.
    (node_name(number) == name && number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_roles_and_nothing_else_does() {
        let node = |number| Roles {
            node: Some(number),
            ..Roles::default()
        };
        let nobody = Roles::default();
        for (names, roles) in [
            (
                &["node-3.esker", "node.esker", "wal-3.example"][..],
                node(3),
            ),
            (&["node-3.esker", "node-3.esker"], node(3)),
            (&["node-3.esker", "node-4.esker"], nobody),
            (&["node-03.esker"], nobody),
            (&["node-+3.esker"], nobody),
            (&["node-0.esker"], nobody),
            (&["node-3.esker.example"], nobody),
            (&["node-.esker", "node.esker", "client.esker"], nobody),
            (&["xagent.esker", "agent.eskers"], nobody),
            (&[], nobody),
        ] {
            assert_eq!(Roles::of(names), roles, "{names:?}");
        }
        let both = Roles::of(&["operator.esker", "agent.esker"]);
        assert!(both.agent && both.operator && both.node.is_none());
    }
}
