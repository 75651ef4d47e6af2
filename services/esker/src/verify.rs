//! Proves that bucket, manifest and head agree.

use esker_client::v1::{Error, VerifyDepth, VerifyReply};
use serde_json::json;

use crate::failure::Failure;
use crate::screen;
use crate::shell::Shell;

/// Findings that a person is shown; the rest are counted. A program is given all.
const FOUND_SHOWN_MAX: usize = 1000;

/// Prove that bucket, manifest and head agree
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Open every batch and hash its records, too
    #[arg(long)]
    content: bool,
}

pub(crate) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let depth = match args.content {
        true => VerifyDepth::Content,
        false => VerifyDepth::Objects,
    };
    let client = shell.client().await?;
    let mut verification =
        (client.admin().verify(depth).await).map_err(|error| Failure::reading(&error))?;
    let bar = screen::progress(None, "{bar:30} segment {pos} of {len}, {msg}");
    let mut found = Vec::new();
    let mut answer = Answer::default();
    let mut last = VerifyReply::default();
    let ended = loop {
        let mut reply = match verification.next().await {
            Ok(Some(reply)) => reply,
            Ok(None) => break Ok(()),
            Err(error) => break Err(again(shell, &error)),
        };
        let new = std::mem::take(&mut reply.found);
        let told: String = new.iter().map(|error| answer.finding(error)).collect();
        if shell.json {
            screen::print(&told)?;
        } else {
            found.extend(new.into_iter().take(FOUND_SHOWN_MAX - found.len()));
        }
        bar.set_length(reply.segments_total);
        bar.set_position(reply.segments);
        bar.set_message(screen::bytes(reply.bytes));
        last = reply;
    };
    bar.finish_and_clear();
    let count = answer.found;
    // What was begun is ended, so that it is one object whatever happened.
    if shell.json && (last.done || count > 0) {
        screen::print(&answer.end(&last))?;
    }
    ended?;
    if !last.done {
        let text = "the service ended verifying before its end";
        return Err(Failure::new(text).and_next("verify again"));
    }
    if !shell.json {
        screen::print(&text(args, &last, &found, count))?;
    }
    match count {
        0 => Ok(()),
        1 => Err(Failure::new(
            "verify found 1 thing that is not as it should be",
        )),
        _ => Err(Failure::new(format!(
            "verify found {count} things that are not as they should be"
        ))),
    }
}

/// What a program is answered: one object, written as it comes. What is found may be more than
/// memory holds, and the sums are known last.
#[derive(Debug, Default)]
struct Answer {
    found: usize,
}

impl Answer {
    /// What to write of one more finding.
    fn finding(&mut self, error: &Error) -> String {
        let before = if self.found == 0 { Self::OPENING } else { "," };
        self.found += 1;
        let finding = json!({ "code": error.code().as_str_name(), "message": error.message });
        format!("{before}{finding}")
    }

    /// What to write behind them.
    fn end(&self, last: &VerifyReply) -> String {
        let before = if self.found == 0 { Self::OPENING } else { "" };
        let sums = json!({
            "segments": last.segments, "bytes": last.bytes,
            "batches": last.batches, "records": last.records,
            "found_total": self.found, "done": last.done,
        });
        let sums = sums.to_string();
        format!("{before}],{}\n", sums.trim_start_matches('{'))
    }

    const OPENING: &str = "{\"found\":[";
}

fn text(args: &Args, last: &VerifyReply, found: &[Error], count: usize) -> String {
    let mut text = String::new();
    for error in found {
        text.push_str(&format!(
            "{}: {}\n",
            error.code().as_str_name(),
            error.message
        ));
    }
    if count > found.len() {
        text.push_str(&format!("and {} more\n", count - found.len()));
    }
    let bytes = screen::bytes(last.bytes);
    text.push_str(&format!(
        "{}, {bytes}",
        screen::count(last.segments, "segment")
    ));
    if args.content {
        text.push_str(&format!(
            ", {}, {}",
            screen::count(last.batches, "batch"),
            screen::count(last.records, "record")
        ));
    }
    text.push_str(if count == 0 {
        ": all as it should be\n"
    } else {
        "\n"
    });
    text
}

fn again(shell: &Shell, error: &esker_client::Error) -> Failure {
    Failure::reading(error).and_next(format!(
        "`{} verify{}` begins anew",
        shell.program, shell.option
    ))
}

#[cfg(test)]
mod tests {
    use esker_client::{Code, Durability};
    use serde_json::Value;

    use super::*;

    fn answered(count: usize, last: &VerifyReply) -> Value {
        let mut answer = Answer::default();
        let findings = (0..count).map(|number| {
            let text = format!("\"{number}\" is gone");
            answer.finding(&Error::new(Code::DataLoss, Durability::Durable, text))
        });
        let findings: String = findings.collect();
        let written = findings + &answer.end(last);
        assert_eq!(written.lines().count(), 1, "one line");
        serde_json::from_str(&written).expect("one object")
    }

    #[test]
    fn a_program_is_given_all_that_was_found_and_the_sums() {
        let last = VerifyReply {
            segments: 7,
            records: 9,
            done: true,
            ..VerifyReply::default()
        };
        for count in [0, 1, FOUND_SHOWN_MAX + 1500] {
            let answer = answered(count, &last);
            let found = answer["found"].as_array().expect("a list");
            assert_eq!(
                (found.len(), &answer["found_total"]),
                (count, &json!(count))
            );
            if let Some(last) = found.last() {
                let text = format!("\"{}\" is gone", count - 1);
                assert_eq!(*last, json!({ "code": "DATA_LOSS", "message": text }));
            }
            assert_eq!(
                (&answer["segments"], &answer["records"]),
                (&json!(7), &json!(9))
            );
            assert_eq!(answer["done"], true);
        }
        assert_eq!(
            answered(3, &VerifyReply::default())["done"],
            false,
            "broken off"
        );
    }
}
