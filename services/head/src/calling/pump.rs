//! The appends of a shard, sent to whoever leads it, through every break. It alone holds their state,
//! so nothing is locked.
//!
//! ```text
//!   queue ─► backlog ─► link ─► node          answer of apply: settled
//!              ▲          │
//!              └──────────┘  not led there, unknown, ended, silent: the next attempt, from the first
//! ```
//! Who says that it does not lead, or does not know, is heard out: what it had not proposed, it says so
//! of, and nothing of that is in doubt. Then the next is asked.

use std::sync::Arc;
use std::time::Duration;

use esker_env::Monotonic;
use esker_log::{HeadError, Leader};
use esker_proto::internal::AppendAnswers;
use esker_types::ShardId;
use esker_types::limits::HEAD_APPEND_STALL_MAX;
use tokio::sync::mpsc;

use super::backlog::{Backlog, Heard};
use super::link::{self, Ended, Link, Told};
use super::queue::Letter;
use super::search::{Miss, Search};
use super::ways::Ways;
use crate::words::{self, Beginning, Fault};

/// Letters taken at once.
const LETTERS_TAKEN: usize = 256;
/// How long the task sleeps if nothing is due.
const IDLE: Duration = Duration::from_secs(60);

pub(super) struct Pump {
    shard: ShardId,
    ways: Arc<Ways>,
    letters: mpsc::Receiver<Letter>,
    closed: bool,
    backlog: Backlog,
    search: Search,
    link: Link,
    attempt: u64,
    opened: Monotonic,
    /// When something was last heard, or first awaited.
    heard: Monotonic,
    rests_until: Monotonic,
    /// Nothing more is sent on this link: somebody else leads.
    leaving: Option<Leaving>,
}

#[derive(Debug)]
struct Leaving {
    leader: Option<Leader>,
}

impl Pump {
    pub(super) fn new(shard: ShardId, ways: Arc<Ways>, letters: mpsc::Receiver<Letter>) -> Self {
        let now = ways.now();
        Self {
            shard,
            search: Search::new(&ways, shard),
            ways,
            letters,
            closed: false,
            backlog: Backlog::new(shard),
            link: Link::Down,
            attempt: 0,
            opened: now,
            heard: now,
            rests_until: now,
            leaving: None,
        }
    }

    /// Runs until its queue is gone.
    pub(super) async fn run(mut self) {
        let mut letters = Vec::with_capacity(LETTERS_TAKEN);
        loop {
            let now = self.ways.now();
            let blocked = self.advance(now);
            if self.closed {
                return self.end();
            }
            let wake = self.until_due(now);
            let room = link::room(if blocked { self.link.messages() } else { None });
            tokio::select! {
                biased;
                told = self.link.told() => match told {
                    Ok(Told::Opened) => self.heard = self.ways.now(),
                    Ok(Told::Answers(answers)) => self.take_answers(answers),
                    Err(ended) => self.take_end(&ended),
                },
                () = room => {}
                count = self.letters.recv_many(&mut letters, LETTERS_TAKEN) => {
                    self.closed = count == 0;
                    self.take_letters(&mut letters);
                }
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    /// Does what is due. Whether it waits for room on the link.
    fn advance(&mut self, now: Monotonic) -> bool {
        self.backlog.expire(now);
        if !self.link.is_down() {
            if self.awaits() && now >= self.stalls_at() {
                let silent = Miss::late(HEAD_APPEND_STALL_MAX, true);
                self.lose("the node has not answered for too long", &silent);
            } else if !self.backlog.owes()
                && let Some(leaving) = self.leaving.take()
            {
                self.leave(leaving);
            }
        }
        if self.link.is_down() && !self.backlog.is_empty() && now >= self.rests_until {
            self.open(now);
        }
        while self.leaving.is_none() && !self.link.is_down() && self.backlog.has_next() {
            let Some(place) = self.link.place() else {
                return true;
            };
            if !self.backlog.owes() {
                self.heard = now;
            }
            if let Some(append) = self.backlog.send(place) {
                self.link.send(append);
            }
        }
        false
    }

    fn until_due(&self, now: Monotonic) -> Duration {
        let mut due = Monotonic(now.0 + IDLE);
        if let Some(expires) = self.backlog.due() {
            due = due.min(expires);
        }
        if self.awaits() {
            due = due.min(self.stalls_at());
        }
        if self.link.is_down() && !self.backlog.is_empty() {
            due = due.min(self.rests_until);
        }
        // Timers tell milliseconds: one too early would come back for nothing.
        due.since(now).max(Duration::from_millis(1))
    }

    /// Whether the node is to say something.
    fn awaits(&self) -> bool {
        self.backlog.owes() || self.link.is_opening()
    }

    fn stalls_at(&self) -> Monotonic {
        Monotonic(self.heard.0 + HEAD_APPEND_STALL_MAX)
    }

    fn take_letters(&mut self, letters: &mut Vec<Letter>) {
        let nobody = self.link.is_down() || self.leaving.is_some();
        let waits = nobody.then(|| self.ways.now());
        for letter in letters.drain(..) {
            self.backlog.push(letter, waits);
        }
    }

    fn open(&mut self, now: Monotonic) {
        match self.search.node() {
            Ok(node) => {
                self.attempt += 1;
                let begins = Beginning {
                    session: self.ways.session,
                    attempt: self.attempt,
                    seen: self.ways.seen(self.shard),
                };
                (self.opened, self.heard) = (now, now);
                self.link = Link::open(&self.ways, self.shard, node, begins);
            }
            Err(miss) => self.rest(&miss),
        }
    }

    fn take_answers(&mut self, answers: AppendAnswers) {
        self.heard = self.ways.now();
        if let Err(fault) = self.read(answers) {
            self.lose(fault, &Miss::unread(fault));
        }
    }

    fn read(&mut self, answers: AppendAnswers) -> Result<(), Fault> {
        let mark = answers.mark.map(words::read_mark).transpose()?;
        self.ways.saw(self.shard, mark);
        for answer in answers.answers {
            let number = answer.number;
            let outcome = words::read_append_answer(answer)?;
            match self.backlog.answered(number, outcome) {
                Heard::Outcome => self.search.found(),
                Heard::Again(leader) => {
                    self.backlog.wait_from(self.heard);
                    let leaving = self.leaving.get_or_insert(Leaving { leader: None });
                    leaving.leader = leader.or(leaving.leader.take());
                }
                Heard::Refusal | Heard::Nothing => {}
            }
        }
        Ok(())
    }

    fn take_end(&mut self, ended: &Ended) {
        let status = &ended.status;
        let passed = self.link.take_down();
        let miss = Miss::of(status, passed > 0, self.ways.now().since(self.opened));
        if ended.took_nothing_more {
            // Whatever else has passed, nobody took it.
            self.gone(0, status.message(), &miss);
        } else {
            let why = format!("the stream to the node ended: {}", status.message());
            self.gone(passed, &why, &miss);
        }
    }

    /// The link is of no use any more.
    fn lose(&mut self, why: &str, miss: &Miss) {
        let passed = self.link.take_down();
        self.gone(passed, why, miss);
    }

    fn gone(&mut self, passed: u64, why: &str, miss: &Miss) {
        self.leaving = None;
        self.backlog.cut(passed, why);
        self.rest(miss);
    }

    /// Everything that was sent is answered, and some of it is to be sent elsewhere.
    fn leave(&mut self, Leaving { leader }: Leaving) {
        let what = "another leads by now".into();
        let error = HeadError::NotLeader {
            shard: self.shard,
            leader: leader.clone(),
            what,
        };
        self.lose("another leads", &Miss::Elsewhere { leader, error });
    }

    /// The next attempt is not made at once, unless somebody was named.
    fn rest(&mut self, miss: &Miss) {
        let now = self.ways.now();
        self.backlog.wait_from(now);
        let rest = self.search.missed(miss);
        self.rests_until = Monotonic(now.0 + rest);
    }

    fn end(mut self) {
        let passed = self.link.take_down();
        self.backlog.cut(passed, "the caller has ended");
        self.backlog.end("the caller has ended");
    }
}
