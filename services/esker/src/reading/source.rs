//! Where records come from: an agent, or a bucket that is read without one.

use esker_client::direct::{Direct, DirectReader};
use esker_client::v1::{self, Mark};
use esker_client::{
    Batch, Client, Code, Durability, Error, From, Offset, Options, ReadOptions, Reader, Until,
};
use esker_types::RaftIndex;
use indicatif::ProgressBar;

use crate::direct;
use crate::failure::Failure;
use crate::headway::{Headway, Waits};
use crate::shell::Shell;

/// Where records come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Agent(Box<Client>),
    Bucket(Direct),
}

/// Where a partition begins and ends.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) partition: u32,
    pub(super) start: Offset,
    pub(super) end: Offset,
    pub(super) mark: Option<Mark>,
    /// Of the topic, if it was told.
    pub(super) topic_id: Option<u64>,
}

/// Batches of a partition, one after the other.
#[derive(Debug)]
pub(super) enum Batches {
    Agent(Reader),
    Bucket(DirectReader),
    /// There are none, which was known without asking.
    None,
}

impl Source {
    /// The bucket that `direct` names, or else the agent.
    pub(crate) async fn open(shell: &Shell, direct: &direct::Bucket) -> Result<Self, Failure> {
        match direct.open(shell).await? {
            Some(direct) => Ok(Self::Bucket(direct)),
            None => {
                let client = shell.client_with(Options::default()).await?;
                Ok(Self::Agent(Box::new(client)))
            }
        }
    }

    /// A person hears if an agent gives nothing. A bucket that is away says so by itself.
    pub(crate) fn headway(&self, shell: &Shell, bar: &ProgressBar) -> Headway {
        match self {
            Self::Agent(client) => Headway::watch(shell, client, bar, Waits::Reading),
            Self::Bucket(_) => Headway::default(),
        }
    }

    /// The id of `topic`.
    pub(crate) async fn topic_id(&self, shell: &Shell, topic: &str) -> Result<u64, Failure> {
        let id = match self {
            Self::Agent(client) => {
                let described = client.admin().describe_topic(topic).await;
                described.map(|(found, _)| found.id)
            }
            Self::Bucket(direct) => direct.topic(topic).map(|found| found.id.as_u64()),
        };
        id.map_err(|error| self.failed(shell, topic, &error))
    }

    /// What it said, with what to do next.
    pub(crate) fn failed(&self, shell: &Shell, topic: &str, error: &Error) -> Failure {
        match self {
            Self::Agent(_) => Failure::reading(error).of_topic(shell, topic),
            Self::Bucket(_) => Failure::reading(error),
        }
    }

    /// Where `partitions` of `topic` begin and end, or all of them, ascending.
    pub(super) async fn ends(&self, topic: &str, partitions: &[u32]) -> Result<Vec<Ends>, Error> {
        let mut ends = match self {
            Self::Agent(client) => of_agent(client, topic, partitions).await?,
            Self::Bucket(direct) => of_bucket(direct, topic, partitions).await?,
        };
        ends.sort_unstable_by_key(|ends| ends.partition);
        Ok(ends)
    }

    /// Reads a partition, which ended at `end`. Of what `holds_nothing` an agent is not asked: there
    /// may be a hundred thousand such.
    pub(super) async fn read(
        &self,
        topic: &str,
        partition: u32,
        options: ReadOptions,
        end: Offset,
        holds_nothing: bool,
    ) -> Result<Batches, Error> {
        match self {
            Self::Agent(_) if holds_nothing => Ok(Batches::None),
            Self::Agent(client) => {
                let reader = client.read(topic, partition, options).await?;
                Ok(Batches::Agent(reader))
            }
            Self::Bucket(direct) => {
                of_this_life(direct, options.mark)?;
                // Whoever asks for all there is hears of what is missing behind it.
                let until = match options.until {
                    Until::Offset(offset) if offset >= end => Until::End,
                    until => until,
                };
                let reader = direct.read(topic, partition, options.from, until).await?;
                Ok(Batches::Bucket(reader))
            }
        }
    }
}

async fn of_agent(client: &Client, topic: &str, partitions: &[u32]) -> Result<Vec<Ends>, Error> {
    let offset = |n| Offset::new(n).unwrap_or(Offset::MAX);
    let found = client.offsets(topic, partitions, None).await?;
    let ends = found.into_iter().map(|offsets| Ends {
        partition: offsets.partition,
        start: offset(offsets.log_start),
        end: offset(offsets.end),
        mark: offsets.mark,
        topic_id: offsets.topic_id,
    });
    Ok(ends.collect())
}

async fn of_bucket(direct: &Direct, topic: &str, partitions: &[u32]) -> Result<Vec<Ends>, Error> {
    let all = direct.offsets(topic)?.into_iter().map(|offsets| Ends {
        partition: offsets.partition,
        start: offsets.log_start,
        end: offsets.end,
        mark: Some(Mark::new(direct.incarnation(), RaftIndex::ZERO)),
        topic_id: None,
    });
    let all: Vec<_> = all.collect();
    if partitions.is_empty() {
        return Ok(all);
    }
    let mut wanted = Vec::new();
    for partition in partitions {
        match all.get(*partition as usize) {
            Some(ends) => wanted.push(ends.clone()),
            // It says what there is.
            None => drop(
                direct
                    .read(topic, *partition, From::Earliest, Until::End)
                    .await?,
            ),
        }
    }
    Ok(wanted)
}

/// What was seen of another life of the cluster may not be in this one.
fn of_this_life(direct: &Direct, seen: Option<Mark>) -> Result<(), Error> {
    let life = direct.incarnation().get();
    match seen.map(|mark| mark.incarnation) {
        Some(seen) if seen != life => {
            let text = format!(
                "the cluster was rebuilt: the bucket's newest incarnation is {life}, the reader \
                 comes from {seen}"
            );
            Err(v1::Error::new(Code::OtherIncarnation, Durability::Durable, text).into())
        }
        _ => Ok(()),
    }
}

impl Batches {
    /// The next batch; `None` at the end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, Error> {
        match self {
            Self::Agent(reader) => reader.next().await,
            Self::Bucket(reader) => reader.next().await,
            Self::None => Ok(None),
        }
    }
}
