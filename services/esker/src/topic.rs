//! Topics: create, list, describe, alter, truncate, delete.

mod setting; // settings as people write them

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Subcommand;
use esker_client::direct::{Direct, DirectTopic};
use esker_client::v1::{AlterTopicRequest, PartitionStatus, Topic, Truncated, Truncation};
use esker_client::{Admin, Client, Code, Error};
use serde_json::{Value, json};

use crate::direct;
use crate::failure::Failure;
use crate::screen::{self, count};
use crate::shell::Shell;
use setting::{setting, told};

/// Create, list, describe, alter, truncate and delete topics
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a topic
    Create {
        /// Its name
        name: String,
        /// How many partitions: 1 to 100,000; there can be more later, never fewer
        #[arg(long, default_value_t = 1, value_name = "N")]
        partitions: u32,
        /// A setting other than its default, such as retention.ms=7d, retention.bytes=10GiB or
        /// max_batch_bytes=4MiB; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
    },
    /// List all topics
    List {
        #[command(flatten)]
        direct: direct::Bucket,
    },
    /// Show a topic's settings and partitions
    Describe {
        /// Its name
        name: String,
    },
    /// Change settings, or add partitions
    Alter(Alter),
    /// Drop the oldest records of a partition: gone for readers at once
    Truncate {
        /// The topic's name
        name: String,
        /// Of which partition
        #[arg(long, value_name = "P")]
        partition: u32,
        /// The first offset to keep [default: the end, nothing is kept]
        #[arg(long, value_name = "OFFSET")]
        before: Option<u64>,
        /// Do not ask; without --before it would
        #[arg(long)]
        yes: bool,
    },
    /// Delete a topic with all its records: its name is free at once
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Alter {
    /// The topic's name
    name: String,
    /// A setting to change, such as retention.ms=7d (or forever), or `KEY=` for its default; may be
    /// repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// How many partitions to have, at least as many as now
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// Refuse unless the topic has this version
    #[arg(long, value_name = "V")]
    expected_version: Option<u64>,
}

pub(crate) async fn run(args: Args, shell: &Shell) -> Result<(), Failure> {
    if let Action::Alter(alter) = &args.action
        && alter.set.is_empty()
        && alter.partitions.is_none()
    {
        let text = "there is nothing to alter: give --set or --partitions";
        return Err(Failure::usage(text));
    }
    if let Action::Delete { name, yes: false } = &args.action
        && !io::stdin().is_terminal()
    {
        let text = format!("this deletes topic {name} with all its records; add --yes");
        return Err(Failure::usage(text));
    }
    if let Action::Truncate {
        name,
        partition,
        before: None,
        yes: false,
    } = &args.action
        && !io::stdin().is_terminal()
    {
        let text = format!(
            "this drops all records of partition {partition} of topic {name}; add --yes, or say by \
             --before which offset is the first to keep"
        );
        return Err(Failure::usage(text));
    }
    if let Action::List { direct } = &args.action
        && let Some(direct) = direct.open(shell).await?
    {
        return list_of_bucket(shell, &direct);
    }
    let client = shell.client().await?;
    let admin = client.admin();
    match args.action {
        Action::Create {
            name,
            partitions,
            set,
        } => create(shell, &admin, &name, partitions, set).await,
        Action::List { .. } => list(shell, &admin).await,
        Action::Describe { name } => describe(shell, &admin, &name).await,
        Action::Alter(args) => alter(shell, &admin, args).await,
        Action::Truncate {
            name,
            partition,
            before,
            yes,
        } => {
            let truncation = Truncation { partition, before };
            truncate(shell, &client, &name, truncation, yes).await
        }
        Action::Delete { name, yes } => delete(shell, &admin, &name, yes).await,
    }
}

async fn create(
    shell: &Shell,
    admin: &Admin,
    name: &str,
    partitions: u32,
    set: Vec<(String, String)>,
) -> Result<(), Failure> {
    let settings: BTreeMap<_, _> = set.into_iter().collect();
    let made = admin.create_topic(name, partitions, &settings).await;
    let topic = made.map_err(|error| Failure::writing(&error).of_topic(shell, name))?;
    shell.answer(&object(&topic), || {
        let (program, option) = (&shell.program, &shell.option);
        format!(
            "created topic {name}, {}\nnext: echo hello | {program} produce {name}{option}\n",
            count(topic.partitions.into(), "partition"),
        )
    })
}

async fn list(shell: &Shell, admin: &Admin) -> Result<(), Failure> {
    let mut topics = Vec::new();
    let mut after = String::new();
    loop {
        let page = admin.list_topics(&after).await;
        let (page, more) = page.map_err(|error| Failure::reading(&error))?;
        let last = page.last().map(|topic| topic.name.clone());
        topics.extend(page);
        match last {
            Some(last) if more => after = last,
            _ => break,
        }
    }
    let answer = json!({ "topics": topics.iter().map(object).collect::<Vec<_>>() });
    shell.answer(&answer, || {
        let rows: Vec<_> = topics
            .iter()
            .map(|topic| {
                let (partitions, version) = (topic.partitions, topic.version);
                vec![
                    topic.name.clone(),
                    partitions.to_string(),
                    version.to_string(),
                ]
            })
            .collect();
        screen::table(&["NAME", "PARTITIONS", "VERSION"], &rows)
    })
}

/// What was flushed of topics, as the bucket tells it.
fn list_of_bucket(shell: &Shell, direct: &Direct) -> Result<(), Failure> {
    let mut found = Vec::new();
    for topic in direct.topics() {
        let offsets = direct.offsets(topic.name);
        let offsets = offsets.map_err(|error| Failure::reading(&error))?;
        let records = offsets.iter().map(|of| of.end.since(of.log_start));
        found.push((topic, records.sum::<u64>()));
    }
    let objects = found.iter().map(|(topic, records)| {
        json!({
            "name": topic.name,
            "id": topic.id.as_u64(),
            "partitions": topic.partitions,
            "records": records,
        })
    });
    let answer = json!({ "topics": objects.collect::<Vec<_>>() });
    shell.answer(&answer, || {
        let row = |(topic, records): &(DirectTopic<'_>, u64)| {
            let partitions = topic.partitions.to_string();
            vec![topic.name.to_owned(), partitions, records.to_string()]
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        screen::table(&["NAME", "PARTITIONS", "RECORDS IN BUCKET"], &rows)
    })
}

async fn describe(shell: &Shell, admin: &Admin, name: &str) -> Result<(), Failure> {
    let described = admin.describe_topic(name).await;
    let (topic, partitions) =
        described.map_err(|error| Failure::reading(&error).of_topic(shell, name))?;
    let mut answer = object(&topic);
    answer["partition_status"] = partitions.iter().map(partition_object).collect();
    shell.answer(&answer, || description(&topic, &partitions))
}

fn description(topic: &Topic, partitions: &[PartitionStatus]) -> String {
    let mut text = format!(
        "topic {}, {}, version {}, id {}\n\n",
        topic.name,
        count(topic.partitions.into(), "partition"),
        topic.version,
        topic.id
    );
    let settings: BTreeMap<_, _> = topic.settings.iter().collect();
    let rows: Vec<_> = settings
        .into_iter()
        .map(|(key, value)| vec![key.clone(), told(key, value)])
        .collect();
    text.push_str(&screen::table(&["SETTING", "VALUE"], &rows));
    let rows: Vec<_> = partitions
        .iter()
        .map(|p| {
            let records = p.end.saturating_sub(p.log_start);
            [
                u64::from(p.partition),
                p.shard.into(),
                p.log_start,
                p.tiered_end,
                p.end,
                records,
            ]
            .map(|number| number.to_string())
            .to_vec()
        })
        .collect();
    let heads = [
        "PARTITION",
        "SHARD",
        "LOG START",
        "IN BUCKET",
        "END",
        "RECORDS",
    ];
    text.push('\n');
    text.push_str(&screen::table(&heads, &rows));
    text
}

async fn alter(shell: &Shell, admin: &Admin, args: Alter) -> Result<(), Failure> {
    let name = args.name.clone();
    let request = AlterTopicRequest {
        name: args.name,
        settings: args.set.into_iter().collect(),
        partitions: args.partitions,
        expected_version: args.expected_version,
    };
    let altered = admin.alter_topic(request).await;
    let topic = altered.map_err(|error| Failure::writing(&error).of_topic(shell, &name))?;
    shell.answer(&object(&topic), || {
        format!("altered topic {name}, now version {}\n", topic.version)
    })
}

async fn truncate(
    shell: &Shell,
    client: &Client,
    name: &str,
    truncation: Truncation,
    yes: bool,
) -> Result<(), Failure> {
    let refused = |error: &Error| Failure::writing(error).of_topic(shell, name);
    let partition = truncation.partition;
    let found = client.offsets(name, &[partition], None).await;
    let found = found.map_err(|error| refused(&error))?;
    let (start, end) = (found.first()).map_or((0, 0), |found| (found.log_start, found.end));
    if !yes && truncation.before.is_none() {
        let held = count(end.saturating_sub(start), "record");
        let question = format!("drop all of partition {partition} of topic {name}, {held}? [y/N] ");
        if !agreed(&question).map_err(|error| Failure::io("stdin", &error))? {
            return Err(Failure::new("nothing was dropped"));
        }
    }
    // What was asked about, and agreed to.
    let seen = found.first().and_then(|found| found.topic_id);
    let (admin, all) = (client.admin(), vec![truncation]);
    let done = admin.truncate_topic(name, seen, all);
    let done = done.await.map_err(|error| {
        let failure = refused(&error);
        match error.code() {
            Code::OffsetOutOfRange => {
                failure.and_next("with --yes and without --before, all of it is dropped")
            }
            _ => failure,
        }
    })?;
    let dropped = |one: &Truncated| one.log_start.saturating_sub(start);
    let objects: Vec<_> = done
        .iter()
        .map(|one| {
            let (partition, start) = (one.partition, one.log_start);
            json!({ "partition": partition, "log_start": start, "dropped": dropped(one) })
        })
        .collect();
    let answer = json!({ "name": name, "truncated": objects });
    shell.answer(&answer, || {
        let lines = done.iter().map(|one| {
            let (partition, start) = (one.partition, one.log_start);
            match dropped(one) {
                0 => format!(
                    "nothing was dropped: {name} partition {partition} begins at offset {start} \
                     already\n"
                ),
                offsets => format!(
                    "truncated {name} partition {partition}: {} dropped, it now begins at offset \
                     {start}\n",
                    count(offsets, "offset"),
                ),
            }
        });
        lines.collect()
    })
}

async fn delete(shell: &Shell, admin: &Admin, name: &str, yes: bool) -> Result<(), Failure> {
    let refused = |error: &Error| Failure::writing(error).of_topic(shell, name);
    if !yes {
        let (topic, partitions) = admin.describe_topic(name).await.map_err(|e| refused(&e))?;
        let records = partitions
            .iter()
            .map(|one| one.end.saturating_sub(one.log_start));
        let question = format!(
            "delete topic {name}, {}, {}? [y/N] ",
            count(topic.partitions.into(), "partition"),
            count(records.sum(), "record"),
        );
        if !agreed(&question).map_err(|error| Failure::io("stdin", &error))? {
            return Err(Failure::new("nothing was deleted"));
        }
    }
    admin.delete_topic(name).await.map_err(|e| refused(&e))?;
    shell.answer(&json!({ "deleted": name }), || {
        format!("deleted topic {name}\n")
    })
}

fn agreed(question: &str) -> io::Result<bool> {
    io::stderr().write_all(question.as_bytes())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn object(topic: &Topic) -> Value {
    let settings: BTreeMap<_, _> = topic.settings.iter().collect();
    json!({
        "name": topic.name,
        "id": topic.id,
        "version": topic.version,
        "partitions": topic.partitions,
        "settings": settings,
    })
}

fn partition_object(status: &PartitionStatus) -> Value {
    json!({
        "partition": status.partition,
        "shard": status.shard,
        "log_start": status.log_start,
        "tiered_end": status.tiered_end,
        "end": status.end,
    })
}
