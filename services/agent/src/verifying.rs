//! A verification, for as long as somebody listens.

use esker_log::{Engine, Verification};
use esker_proto::v1;
use esker_segment::Depth;
use esker_types::Durability;
use esker_types::limits::{REPLY_STALL_MAX, VERIFICATIONS_MAX};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::fault;
use crate::stream::{Sender, Unsent};

/// A verification, and its place among those of the agent.
pub(crate) struct Verifying {
    pub(crate) engine: Engine,
    pub(crate) depth: Depth,
    pub(crate) _place: OwnedSemaphorePermit,
}

impl Verifying {
    /// Until everything is verified, or the client has gone: its place is the next one's then.
    ///
    /// # Errors
    /// A head that does not say what is to be verified, or a client that takes no replies.
    pub(crate) async fn run(self, replies: Sender<v1::VerifyReply>) -> Result<(), v1::Error> {
        let (tell, mut told) = mpsc::channel(1);
        let verifying = async { Ok(self.engine.verify(self.depth, tell).await) };
        let telling = async {
            while let Some(so_far) = told.recv().await {
                replies.send(reply(&so_far)).await?;
            }
            Ok(())
        };
        let both = async { tokio::try_join!(verifying, telling) };
        let ended = tokio::select! {
            biased;
            () = replies.gone() => return Ok(()),
            ended = both => ended,
        };
        match ended {
            Ok((Ok(()), ())) | Err(Unsent::Gone) => Ok(()),
            Ok((Err(error), ())) => {
                let (code, text) = (v1::Code::Unavailable, error.to_string());
                Err(v1::Error::new(code, Durability::Durable, text))
            }
            Err(Unsent::Stalled) => Err(stalled()),
        }
    }
}

/// A verification for which there is no place.
pub(crate) fn no_place() -> v1::Error {
    let limit = VERIFICATIONS_MAX as u64;
    let text = format!(
        "the verification was not begun: {limit} is under way at this agent, which is the limit; end it, \
         come back once it has ended, or ask another agent"
    );
    let error = v1::Error::new(v1::Code::Overloaded, Durability::NotWritten, text);
    error.with_limit(limit, limit + 1)
}

fn stalled() -> v1::Error {
    let seconds = REPLY_STALL_MAX.as_secs();
    let text = format!(
        "the client took no reply for {seconds} s, the limit; verifying has ended: begin it anew"
    );
    let error = v1::Error::new(v1::Code::Overloaded, Durability::Durable, text);
    error.with_limit(seconds, seconds)
}

fn reply(so_far: &Verification) -> v1::VerifyReply {
    v1::VerifyReply {
        segments: so_far.segments,
        segments_total: so_far.segments_total,
        bytes: so_far.bytes,
        batches: so_far.batches,
        records: so_far.records,
        found: so_far.found.iter().map(fault::of_finding).collect(),
        done: so_far.done,
    }
}
