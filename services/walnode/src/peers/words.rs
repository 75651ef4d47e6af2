//! Messages between nodes: as they travel, and as the log means them.

use esker_proto::internal as wire;
use esker_shard::StateHash;
use esker_types::{EntryId, RaftIndex, Term};
use esker_wal::disk::{Body, Vote};
use esker_wal::peers::{
    AppendReply, AppendRequest, Likeness, TransferReply, TransferRequest, VoteReply, VoteRequest,
};

/// What is missing in a message, or is none.
pub(super) type Fault = &'static str;

pub(super) fn id(id: EntryId) -> Option<wire::EntryId> {
    (id != EntryId::default()).then_some(wire::EntryId {
        term: id.term.0,
        index: id.index.0,
    })
}

pub(super) fn read_id(id: Option<wire::EntryId>) -> EntryId {
    id.map_or_else(EntryId::default, |id| EntryId {
        term: Term(id.term),
        index: RaftIndex(id.index),
    })
}

pub(super) fn vote(vote: Vote) -> Option<wire::Vote> {
    Some(wire::Vote {
        term: vote.term.0,
        node: vote.node,
        committed: vote.committed,
    })
}

pub(super) fn read_vote(vote: Option<wire::Vote>) -> Result<Vote, Fault> {
    let vote = vote.ok_or("it has no vote")?;
    Ok(Vote {
        term: Term(vote.term),
        node: vote.node,
        committed: vote.committed,
    })
}

pub(super) fn entry((at, body): (EntryId, Body)) -> wire::Entry {
    wire::Entry {
        id: id(at),
        head: body.head(),
        payload: body.payload().to_vec(),
    }
}

pub(super) fn read_entry(entry: wire::Entry) -> (EntryId, Body) {
    (read_id(entry.id), Body::new(&entry.head, entry.payload))
}

pub(super) fn append(request: AppendRequest) -> wire::AppendRequest {
    wire::AppendRequest {
        vote: vote(request.vote),
        previous: id(request.previous),
        entries: request.entries.into_iter().map(entry).collect(),
        committed: id(request.committed),
    }
}

pub(super) fn read_append(request: wire::AppendRequest) -> Result<AppendRequest, Fault> {
    Ok(AppendRequest {
        vote: read_vote(request.vote)?,
        previous: read_id(request.previous),
        entries: request.entries.into_iter().map(read_entry).collect(),
        committed: read_id(request.committed),
    })
}

pub(super) fn append_reply(reply: AppendReply) -> wire::AppendReply {
    use wire::append_reply::{Matched, Reply};
    let reply = match reply {
        AppendReply::Matched {
            upto,
            room,
            damaged,
        } => Reply::Matched(Matched {
            upto: id(upto),
            room,
            damaged,
        }),
        AppendReply::Conflict(at) => Reply::Conflict(id(at).unwrap_or_default()),
        AppendReply::HigherVote(higher) => Reply::HigherVote(vote(higher).unwrap_or_default()),
    };
    wire::AppendReply { reply: Some(reply) }
}

pub(super) fn read_append_reply(reply: wire::AppendReply) -> Result<AppendReply, Fault> {
    use wire::append_reply::Reply;
    Ok(match reply.reply.ok_or("it says nothing")? {
        Reply::Matched(matched) => AppendReply::Matched {
            upto: read_id(matched.upto),
            room: matched.room,
            damaged: matched.damaged,
        },
        Reply::Conflict(at) => AppendReply::Conflict(read_id(Some(at))),
        Reply::HigherVote(higher) => AppendReply::HigherVote(read_vote(Some(higher))?),
    })
}

pub(super) fn ballot(request: VoteRequest) -> wire::VoteRequest {
    wire::VoteRequest {
        vote: vote(request.vote),
        last: id(request.last),
        transfer: request.transfer,
        beforehand: request.beforehand,
    }
}

pub(super) fn read_ballot(request: wire::VoteRequest) -> Result<VoteRequest, Fault> {
    Ok(VoteRequest {
        vote: read_vote(request.vote)?,
        last: read_id(request.last),
        transfer: request.transfer,
        beforehand: request.beforehand,
    })
}

pub(super) fn vote_reply(reply: VoteReply) -> wire::VoteReply {
    wire::VoteReply {
        vote: vote(reply.vote),
        granted: reply.granted,
        last: id(reply.last),
    }
}

pub(super) fn read_vote_reply(reply: wire::VoteReply) -> Result<VoteReply, Fault> {
    Ok(VoteReply {
        vote: read_vote(reply.vote)?,
        granted: reply.granted,
        last: read_id(reply.last),
    })
}

pub(super) fn likeness(likeness: Option<Likeness>) -> wire::CompareReply {
    likeness.map_or_else(wire::CompareReply::default, |Likeness { at, hash }| {
        wire::CompareReply {
            at: id(at),
            hash: hash.0.to_be_bytes().to_vec().into(),
        }
    })
}

pub(super) fn read_likeness(reply: &wire::CompareReply) -> Result<Option<Likeness>, Fault> {
    let at = read_id(reply.at);
    if at == EntryId::default() {
        return Ok(None);
    }
    let hash = reply.hash[..].try_into();
    let hash = hash.map_err(|_| "a hash has 16 bytes")?;
    let hash = StateHash(u128::from_be_bytes(hash));
    Ok(Some(Likeness { at, hash }))
}

pub(super) fn transfer(request: TransferRequest) -> wire::TransferRequest {
    wire::TransferRequest {
        from: vote(request.from),
        to: request.to,
        last: id(request.last),
    }
}

pub(super) fn read_transfer(request: wire::TransferRequest) -> Result<TransferRequest, Fault> {
    Ok(TransferRequest {
        from: read_vote(request.from)?,
        to: request.to,
        last: read_id(request.last),
    })
}

pub(super) fn transfer_reply(reply: TransferReply) -> wire::TransferReply {
    use wire::transfer_reply::{Behind, Reply, Taken};
    let reply = match reply {
        TransferReply::Taken => Reply::Taken(Taken {}),
        TransferReply::VoteChanged(changed) => {
            Reply::VoteChanged(vote(changed).unwrap_or_default())
        }
        TransferReply::Behind(last) => Reply::Behind(Behind { last: id(last) }),
    };
    wire::TransferReply { reply: Some(reply) }
}

pub(super) fn read_transfer_reply(reply: wire::TransferReply) -> Result<TransferReply, Fault> {
    use wire::transfer_reply::Reply;
    Ok(match reply.reply.ok_or("it says nothing")? {
        Reply::Taken(_) => TransferReply::Taken,
        Reply::VoteChanged(changed) => TransferReply::VoteChanged(read_vote(Some(changed))?),
        Reply::Behind(behind) => TransferReply::Behind(read_id(behind.last)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_what_is_damaged_arrive_as_they_were_said() {
        let at = EntryId {
            term: Term(3),
            index: RaftIndex(9),
        };
        let lost = Body::new(&[], Vec::new());
        let whole = Body::new(b"x", vec![b"y".to_vec().into()]);
        for body in [lost, whole] {
            let said = (at, body);
            assert_eq!(read_entry(entry(said.clone())), said);
        }
        for damaged in [false, true] {
            let reply = AppendReply::Matched {
                upto: at,
                room: 7,
                damaged,
            };
            assert_eq!(read_append_reply(append_reply(reply)), Ok(reply));
        }
    }
}
