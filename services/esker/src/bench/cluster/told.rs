//! What was measured, for a program and for a person.

use serde_json::{Value, json};

use super::{Cluster, Measured, PARTITIONS, Shape, Taken, bytes_more};
use crate::screen;

impl Cluster {
    /// Of what three processes take apart, and in a row.
    fn ratios(&self) -> [f64; 2] {
        let limits = [self.limits.apart, self.limits.in_a_row];
        limits.map(|limit| self.fed.bytes_per_second / limit.bytes_per_second)
    }
}

impl Measured {
    /// Bytes that a partition takes of the fullest node, and of the agent: what they hold more than in a
    /// cluster that differs in having fewer partitions, filled with as many records. `None` where there is none.
    fn of_partition(&self, cluster: &Cluster) -> Option<[f64; 2]> {
        let alike = |other: &&Cluster| {
            let Shape {
                nodes,
                shards,
                partitions,
            } = other.shape;
            let fewer = partitions > PARTITIONS && partitions < cluster.shape.partitions;
            fewer && (nodes, shards) == (cluster.shape.nodes, cluster.shape.shards)
        };
        let fewer = self.clusters.iter().filter(alike);
        let fewer = fewer.min_by_key(|other| other.shape.partitions)?;
        let more = f64::from(cluster.shape.partitions - fewer.shape.partitions);
        Some([0, 1].map(|at| bytes_more(fewer.held[at], cluster.held[at]) / more))
    }

    pub(super) fn object(&self) -> Value {
        let limit = |limit: Taken| {
            json!({
                "mb_per_s": limit.bytes_per_second / 1e6,
                "cpu_ms_per_mib": limit.cpu_per_mib * 1e3,
            })
        };
        let clusters = self.clusters.iter().map(|cluster| {
            let Shape {
                nodes,
                shards,
                partitions,
            } = cluster.shape;
            json!({
                "nodes": nodes,
                "data_shards": shards,
                "partitions": partitions,
                "mb_per_s": cluster.fed.bytes_per_second / 1e6,
                "limits": {
                    "apart": limit(cluster.limits.apart),
                    "in_a_row": limit(cluster.limits.in_a_row),
                },
                "ratio": { "apart": cluster.ratios()[0], "in_a_row": cluster.ratios()[1] },
                "fed": cluster.fed.latency.object(),
                "producer_mb_per_s": cluster.full.bytes_per_second() / 1e6,
                "producer": cluster.full.written.latency.object(),
                "single": cluster.single.object(),
                "cpu_ms_per_mib": cluster.fed.cpu_per_mib * 1e3,
                "idle_cores": cluster.idle,
                "most_resident_bytes": cluster.most_resident,
                "held_bytes": { "node": cluster.held[0], "agent": cluster.held[1] },
                "bytes_per_partition": self
                    .of_partition(cluster)
                    .map(|[node, agent]| json!({ "node": node, "agent": agent })),
            })
        });
        json!({ "clusters": clusters.collect::<Vec<_>>() })
    }

    pub(super) fn text(&self) -> String {
        let rows: Vec<_> = self
            .clusters
            .iter()
            .map(|cluster| self.row(cluster))
            .collect();
        let heads = [
            "NODES",
            "SHARDS",
            "PARTITIONS",
            "FED MB/s",
            "APART",
            "RATIO",
            "IN A ROW",
            "RATIO",
            "p50 ms",
            "p99 ms",
            "PRODUCER MB/s",
            "p50 ms",
            "p99 ms",
            "SINGLE p50",
            "p99 ms",
            "CPU ms/MiB",
            "APART",
            "IN A ROW",
            "IDLE CPU",
            "MOST HELD",
            "NODE B/PART",
            "AGENT",
        ];
        format!(
            "{}\nAPART: three processes that only write, and sync, when each is sent the same. IN A ROW: the same \
             behind a relay that gets it again. FED: the cluster, sent the same in the same way.\n",
            screen::table(&heads, &rows),
        )
    }

    fn row(&self, cluster: &Cluster) -> Vec<String> {
        let Shape {
            nodes,
            shards,
            partitions,
        } = cluster.shape;
        let latencies = [
            &cluster.fed.latency,
            &cluster.full.written.latency,
            &cluster.single,
        ];
        let latencies = latencies.map(|of| {
            let quantiles = [500_000, 990_000].map(|of_million| of.quantile_ms(of_million));
            quantiles.map(|ms| format!("{ms:.2}"))
        });
        let [fed, producer, single] = latencies;
        let mut row = vec![
            nodes.to_string(),
            shards.to_string(),
            partitions.to_string(),
            format!("{:.0}", cluster.fed.bytes_per_second / 1e6),
        ];
        let limits = [cluster.limits.apart, cluster.limits.in_a_row];
        for (limit, ratio) in limits.iter().zip(cluster.ratios()) {
            row.push(format!("{:.0}", limit.bytes_per_second / 1e6));
            row.push(format!("{ratio:.2}"));
        }
        row.extend(fed);
        row.push(format!("{:.0}", cluster.full.bytes_per_second() / 1e6));
        row.extend(producer.into_iter().chain(single));
        let cpu = [
            cluster.fed.cpu_per_mib,
            limits[0].cpu_per_mib,
            limits[1].cpu_per_mib,
        ];
        row.extend(cpu.map(|seconds| format!("{:.1}", seconds * 1e3)));
        row.extend([
            format!("{:.1} %", cluster.idle * 100.0),
            screen::bytes(cluster.most_resident),
        ]);
        let of_partition = self.of_partition(cluster);
        let told = of_partition.map(|each| each.map(|bytes| format!("{bytes:.0}")));
        row.extend(told.unwrap_or_default());
        row
    }
}
