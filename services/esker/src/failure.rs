//! How a command fails, and what it says then: one line on stderr, with what to do next.

use std::io::{self, Write as _};
use std::process::ExitCode;

use esker_client::{Code, Durability, Error};
use serde_json::{Map, Value, json};

use crate::run::Failed;
use crate::shell::Shell;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked for wrongly: exit code 2.
    Usage(String),
    /// It could not: exit code 1.
    Failed(Box<Report>),
    /// Who read our stdout has enough: exit code 0, silently.
    Unread,
}

/// What is said of a failure.
#[derive(Debug)]
pub(crate) struct Report {
    message: String,
    /// Whether a person is told of durability, which means nothing to who only read.
    wrote: bool,
    error: Option<Error>,
    also: Option<String>,
    next: Option<String>,
    /// More for a program.
    fields: Map<String, Value>,
}

impl Failure {
    /// It could not be done.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Failed(Box::new(Report {
            message: message.into(),
            wrote: false,
            error: None,
            also: None,
            next: None,
            fields: Map::new(),
        }))
    }

    /// It was asked for wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The service said so to a question that changes nothing.
    pub(crate) fn reading(error: &Error) -> Self {
        Self::of(error, false)
    }

    /// The service said so to something that would have changed it.
    pub(crate) fn writing(error: &Error) -> Self {
        Self::of(error, true)
    }

    fn of(error: &Error, wrote: bool) -> Self {
        Self::Failed(Box::new(Report {
            message: error.message().to_owned(),
            wrote,
            error: Some(error.clone()),
            also: None,
            next: None,
            fields: Map::new(),
        }))
    }

    /// A file, directory or pipe would not.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::new(format!("{what}: {error}"))
    }

    /// With what to do next.
    pub(crate) fn and_next(mut self, next: impl Into<String>) -> Self {
        if let Self::Failed(report) = &mut self {
            report.next = Some(next.into());
        }
        self
    }

    /// With more for a program.
    pub(crate) fn with_field(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Self::Failed(report) = &mut self {
            report.fields.insert(name.to_owned(), value.into());
        }
        self
    }

    /// With more for a person.
    pub(crate) fn and_also(mut self, text: &str) -> Self {
        if let Self::Failed(report) = &mut self {
            report.also = Some(text.to_owned());
        }
        self
    }

    /// With what to do about a topic, a partition or an offset that is not there, or a topic that is.
    pub(crate) fn of_topic(mut self, shell: &Shell, topic: &str) -> Self {
        let (program, option) = (&shell.program, &shell.option);
        match self.code() {
            Some(Code::UnknownTopic) if self.is_anew() => self.and_next(format!(
                "`{program} topic describe {topic}{option}` shows the one there is"
            )),
            Some(Code::UnknownTopic) => {
                // What to do is said once, by a command that may be copied.
                if let Self::Failed(report) = &mut self
                    && let Some((what, _)) = report.message.split_once("; create it first")
                {
                    report.message = what.to_owned();
                }
                self.and_next(format!("`{program} topic create {topic}{option}` makes it"))
            }
            Some(Code::TopicExists) => self.and_next(format!(
                "`{program} topic describe {topic}{option}` shows it, `{program} topic alter \
                 {topic}{option}` changes it"
            )),
            Some(Code::UnknownPartition) => self.and_next(format!(
                "`{program} topic describe {topic}{option}` shows those there are"
            )),
            Some(Code::OffsetOutOfRange) => {
                self.and_next("`--from earliest` begins with the first record kept")
            }
            _ => self,
        }
    }

    /// Whether another topic has the name.
    fn is_anew(&self) -> bool {
        matches!(self, Self::Failed(report) if report.message.contains("made anew"))
    }

    fn code(&self) -> Option<Code> {
        match self {
            Self::Failed(report) => report.error.as_ref().map(Error::code),
            Self::Usage(_) | Self::Unread => None,
        }
    }

    /// Says it and gives the exit code.
    pub(crate) fn tell(&self, shell: &Shell) -> ExitCode {
        self.tell_as(shell.json)
    }

    /// The same, where what is wrong are the arguments that would say how.
    pub(crate) fn tell_a_program(&self) -> ExitCode {
        self.tell_as(true)
    }

    fn tell_as(&self, json: bool) -> ExitCode {
        let (line, code) = match self {
            Self::Unread => return ExitCode::SUCCESS,
            Self::Usage(message) if json => {
                let fields = json!({ "error": { "code": "USAGE", "message": message } });
                (fields.to_string(), 2)
            }
            Self::Usage(message) => (format!("esker: {message}"), 2),
            Self::Failed(report) if json => (report.json().to_string(), 1),
            Self::Failed(report) => (format!("esker: {}", report.text()), 1),
        };
        // Nobody is left to be told if this fails.
        let _ = writeln!(io::stderr(), "{line}");
        ExitCode::from(code)
    }
}

/// What `work` comes to, unless `interrupt` is ready before.
pub(crate) async fn unless<T>(
    interrupt: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = interrupt => Err(Failure::new("interrupted")),
        done = work => done,
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        match failed.is_usage() {
            true => Self::usage(failed.to_string()),
            false => Self::new(failed.to_string()),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = self.message.clone();
        if let Some(error) = &self.error {
            let code = error.code().as_str_name();
            text = match self.wrote {
                true => format!("{text} ({code}; {})", error.durability()),
                false => format!("{text} ({code})"),
            };
        }
        let more = [&self.also, &self.next].into_iter().flatten();
        more.fold(text, |text, more| format!("{text}; {more}"))
    }

    fn json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("message".into(), self.message.clone().into());
        let code = self
            .error
            .as_ref()
            .map_or("FAILED", |error| error.code().as_str_name());
        fields.insert("code".into(), code.into());
        if let Some(error) = &self.error {
            let durability = match error.durability() {
                Durability::Durable => "DURABLE",
                Durability::NotWritten => "NOT_WRITTEN",
                Durability::Unknown => "UNKNOWN",
            };
            fields.insert("durability".into(), durability.into());
            fields.insert("retriable".into(), error.is_retriable().into());
            if let Some((limit, value)) = error.limit_and_value() {
                fields.insert("limit".into(), limit.into());
                fields.insert("value".into(), value.into());
            }
        }
        if let Some(next) = &self.next {
            fields.insert("next".into(), next.clone().into());
        }
        fields.extend(self.fields.clone());
        json!({ "error": fields })
    }
}

/// What stdout says. A reader that has gone is no failure.
pub(crate) fn of_stdout(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::io("stdout", error),
    }
}
