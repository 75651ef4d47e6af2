//! How an agent finds its cluster: it asks the WAL nodes that it is told of, until one has begun.

use std::time::Duration;

use esker_env::Env;
use esker_walnode::adoption::{CallError, Calling, Hello, Membership};
use futures::future::join_all;
use tokio::sync::watch;

use super::ServeError;
use crate::observe::Stand;

/// How long the nodes may take to answer, all together.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Between two rounds.
const REST: Duration = Duration::from_millis(250);

/// The cluster of `nodes`, once it has begun; until then, `stand` says what is waited for.
pub(super) async fn search(
    env: &Env,
    nodes: &[String],
    stand: &watch::Sender<Stand>,
) -> Result<Membership, ServeError> {
    let nodes = nodes.iter();
    // The configuration knows an address when it sees one.
    let nodes = nodes.filter_map(|node| Calling::new(&env.network, node).ok());
    let nodes: Vec<_> = nodes.collect();
    let mut told = String::new();
    loop {
        let asked = nodes.iter().map(async |node| {
            let answer = tokio::time::timeout(ANSWER_MAX, node.hello()).await;
            let late = |_| CallError::Away {
                address: node.address().to_owned(),
                what: format!("no answer within {ANSWER_MAX:?}"),
            };
            (node.address().to_owned(), answer.map_err(late).flatten())
        });
        let answers = join_all(asked).await;
        if let Some(cluster) = begun(&answers)? {
            return Ok(cluster);
        }
        let waiting = waiting(&answers);
        if waiting != told {
            tracing::warn!("{waiting}");
            stand.send_replace(Stand::Starting(waiting.clone().into()));
            told = waiting;
        }
        tokio::time::sleep(REST).await;
    }
}

type Answer = (String, Result<Hello, CallError>);

/// The one cluster that nodes are of, if one of them has begun.
fn begun(answers: &[Answer]) -> Result<Option<Membership>, ServeError> {
    let of = answers.iter().filter_map(|(address, hello)| {
        let hello = hello.as_ref().ok()?;
        Some((address, hello.membership?, hello.has_begun()))
    });
    let of: Vec<_> = of.collect();
    let Some((one, first, _)) = of.first() else {
        return Ok(None);
    };
    let same = |of: &Membership| (of.cluster, of.incarnation) == (first.cluster, first.incarnation);
    if let Some((other, membership, _)) = of.iter().find(|(_, of, _)| !same(of)) {
        return Err(ServeError::TwoClusters {
            one: (*one).clone(),
            by: first.cluster,
            other: (*other).clone(),
            to: membership.cluster,
        });
    }
    let begun = of.iter().find(|(_, _, begun)| *begun);
    Ok(begun.map(|(_, membership, _)| *membership))
}

/// What is waited for, in words.
fn waiting(answers: &[Answer]) -> String {
    let heard: Vec<_> = answers
        .iter()
        .filter_map(|(_, hello)| hello.as_ref().ok())
        .collect();
    if heard.is_empty() {
        let errors = answers.iter().filter_map(|(_, hello)| hello.as_ref().err());
        let errors: Vec<_> = errors.map(ToString::to_string).collect();
        return format!("no WAL node answers: {}", errors.join("; "));
    }
    if heard.iter().any(|hello| hello.membership.is_some()) {
        "the WAL nodes are adopted, and have not begun or still read their logs: if it lasts, run \
         `esker cluster init` (again)"
            .to_owned()
    } else {
        "the WAL nodes that answer wait to be adopted: run `esker cluster init`, once".to_owned()
    }
}

#[cfg(test)]
mod tests;
