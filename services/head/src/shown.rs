//! What every call shows: which cluster it is of, and which shard it is about.

use esker_types::{ClusterId, ShardId};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

const CLUSTER: &str = "esker-cluster";
const SHARD: &str = "esker-shard";

/// Shows them on a call.
pub(crate) fn show(cluster: ClusterId, shard: ShardId, on: &mut MetadataMap) {
    let mut put = |name: &'static str, text: String| {
        let value = AsciiMetadataValue::try_from(text);
        on.insert(name, value.expect("digits"));
    };
    put(CLUSTER, cluster.to_string());
    put(SHARD, shard.0.to_string());
}

/// Reads which shard a call is about; why not, if it is of another cluster than `ours`.
pub(crate) fn check(ours: ClusterId, shown: &MetadataMap) -> Result<ShardId, String> {
    let cluster = text(shown, CLUSTER)?;
    if cluster != ours.to_string() {
        return Err(format!(
            "this node is of cluster {ours}, the call is of cluster {cluster}"
        ));
    }
    let shard = text(shown, SHARD)?.parse();
    shard.map(ShardId).map_err(|_| unreadable(SHARD))
}

fn text<'a>(shown: &'a MetadataMap, name: &'static str) -> Result<&'a str, String> {
    let value = shown
        .get(name)
        .ok_or_else(|| format!("the call has no {name}"))?;
    value.to_str().map_err(|_| unreadable(name))
}

fn unreadable(name: &str) -> String {
    format!("{name} of the call cannot be read")
}
