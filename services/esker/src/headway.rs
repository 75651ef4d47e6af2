//! Whether records get on, and a word to a person if they do not: what goes on trying for minutes
//! should not look as if it hung.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_client::{Client, Error};
use esker_env::{Clock, Monotonic};
use indicatif::ProgressBar;
use serde_json::json;

use crate::screen;
use crate::shell::Shell;

/// How long nothing may get on before it is said.
const QUIET: Duration = Duration::from_secs(2);
/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What a command tells of how it gets on. It is looked at until this is dropped.
#[derive(Clone, Default, Debug)]
pub(crate) struct Headway(Arc<Gauge>);

#[derive(Default, Debug)]
struct Gauge {
    /// Records that wait to be written, or reads under way.
    waiting: AtomicU64,
    /// Grows with whatever gets on.
    steps: AtomicU64,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waits {
    /// That records are written, those that linger so long included.
    Writing(Duration),
    /// That records come.
    Reading,
}

impl Headway {
    /// Begins to look at it. While a bar is shown, what is said stands above it.
    pub(crate) fn watch(shell: &Shell, client: &Client, bar: &ProgressBar, waits: Waits) -> Self {
        let headway = Self::default();
        let gauge = Arc::downgrade(&headway.0);
        let clock = Arc::clone(&shell.env.clock);
        let teller = Teller {
            endpoint: shell.endpoint.clone(),
            json: shell.json,
            bar: bar.clone(),
            waits,
        };
        let client = client.clone();
        tokio::spawn(async move {
            let mut quiet = Quiet::new(&*clock, waits);
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(gauge) = gauge.upgrade() else {
                    return;
                };
                let waiting = gauge.waiting.load(Ordering::Relaxed);
                let steps = gauge.steps.load(Ordering::Relaxed);
                let setback = client.setback();
                let waits = waiting > 0 || setback.is_some();
                match quiet.look(clock.monotonic(), steps, waits) {
                    Some(Word::Waits(time)) => teller.waits(time, waiting, setback.as_ref()),
                    Some(Word::GoesOn(time)) => teller.goes_on(time),
                    None => {}
                }
            }
        });
        headway
    }

    /// So many records wait to be written.
    pub(crate) fn waiting(&self, records: u64) {
        self.0.waiting.store(records, Ordering::Relaxed);
    }

    /// Something got on.
    pub(crate) fn step(&self) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Does `read`, which is waited for.
    pub(crate) async fn of<T, E>(&self, read: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(&self.0);
        let done = read.await;
        drop(under_way);
        if done.is_ok() {
            self.step();
        }
        done
    }
}

/// A read that is waited for, up to its end or to where it is given up.
struct UnderWay<'a>(&'a Gauge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is to be said now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    /// Nothing got on for so long.
    Waits(Duration),
    /// It goes on, after so long.
    GoesOn(Duration),
}

/// How long nothing got on.
#[derive(Debug)]
struct Quiet {
    longest: Duration,
    /// Who waits no more has got on: not so who writes, for whom all may have failed.
    waits_no_more: bool,
    steps: u64,
    since: Monotonic,
    told: Option<Monotonic>,
}

impl Quiet {
    fn new(clock: &dyn Clock, waits: Waits) -> Self {
        Self {
            longest: match waits {
                Waits::Writing(linger) => QUIET + linger,
                Waits::Reading => QUIET,
            },
            waits_no_more: waits == Waits::Reading,
            steps: 0,
            since: clock.monotonic(),
            told: None,
        }
    }

    fn look(&mut self, now: Monotonic, steps: u64, waits: bool) -> Option<Word> {
        let time = now.since(self.since);
        let goes_on = steps != self.steps;
        if goes_on || !waits {
            (self.steps, self.since) = (steps, now);
            let told = self.told.take().filter(|_| goes_on || self.waits_no_more);
            return told.map(|_| Word::GoesOn(time));
        }
        let due = match self.told {
            None => time >= self.longest,
            Some(told) => now.since(told) >= AGAIN,
        };
        due.then(|| {
            self.told = Some(now);
            Word::Waits(time)
        })
    }
}

/// Who says it.
struct Teller {
    endpoint: String,
    json: bool,
    bar: ProgressBar,
    waits: Waits,
}

impl Teller {
    fn waits(&self, time: Duration, waiting: u64, setback: Option<&Error>) {
        let (endpoint, seconds) = (&self.endpoint, time.as_secs());
        let records = matches!(self.waits, Waits::Writing(_)).then_some(waiting);
        if self.json {
            let error = setback.map(
                |error| json!({ "code": error.code().as_str_name(), "message": error.message() }),
            );
            let fields = json!({
                "waiting_for": endpoint, "seconds": seconds, "records": records,
                "last_error": error,
            });
            return self.note(&fields.to_string());
        }
        let wait = match records {
            Some(1) => "; 1 record waits".to_owned(),
            Some(records) => format!("; {records} records wait"),
            None => String::new(),
        };
        let what = match setback {
            None => format!("no answer from {endpoint} for {seconds} s, trying on{wait}"),
            Some(error) => {
                let (code, why) = (error.code().as_str_name(), error.message());
                format!(
                    "nothing gets on with {endpoint} for {seconds} s, trying on{wait}: {why} ({code})"
                )
            }
        };
        self.note(&format!("esker: {what}"));
    }

    fn goes_on(&self, time: Duration) {
        let (endpoint, seconds) = (&self.endpoint, time.as_secs());
        self.note(&match self.json {
            true => json!({ "going_on_with": endpoint, "seconds": seconds }).to_string(),
            false => format!("esker: {endpoint} answers again after {seconds} s, going on"),
        });
    }

    fn note(&self, line: &str) {
        self.bar.suspend(|| screen::note(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_get_on_is_said_now_and_then_and_that_it_does_once() {
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        let waits = |seconds| Some(Word::Waits(Duration::from_secs(seconds)));
        let mut quiet = Quiet {
            longest: QUIET,
            waits_no_more: false,
            steps: 0,
            since: at(0),
            told: None,
        };
        assert_eq!(quiet.look(at(10), 0, false), None, "nobody waits");
        assert_eq!(quiet.look(at(11), 0, true), None);
        assert_eq!(quiet.look(at(12), 0, true), waits(2));
        assert_eq!(quiet.look(at(41), 0, true), None);
        assert_eq!(quiet.look(at(42), 0, true), waits(32));
        let over = Some(Word::GoesOn(Duration::from_secs(33)));
        assert_eq!(quiet.look(at(43), 1, true), over);
        assert_eq!(quiet.look(at(44), 1, true), None);
        assert_eq!(quiet.look(at(46), 1, true), waits(3));
        assert_eq!(quiet.look(at(47), 1, false), None, "it may have failed");
    }
}
