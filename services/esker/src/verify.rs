//! Proves that bucket, manifest and head agree.

use esker_client::v1::{VerifyDepth, VerifyReply};
use serde_json::json;

use crate::failure::Failure;
use crate::screen;
use crate::shell::Shell;

/// Findings that are shown; the rest are counted.
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
    let mut count = 0usize;
    let mut last = VerifyReply::default();
    while let Some(mut reply) = (verification.next().await).map_err(|error| again(shell, &error))? {
        let new = std::mem::take(&mut reply.found);
        count += new.len();
        found.extend(new.into_iter().take(FOUND_SHOWN_MAX - found.len()));
        bar.set_length(reply.segments_total);
        bar.set_position(reply.segments);
        bar.set_message(screen::bytes(reply.bytes));
        last = reply;
    }
    bar.finish_and_clear();
    if !last.done {
        let text = "the service ended verifying before its end";
        return Err(Failure::new(text).and_next("verify again"));
    }
    let messages = found
        .iter()
        .map(|error| json!({ "code": error.code().as_str_name(), "message": error.message }));
    let messages: Vec<_> = messages.collect();
    let answer = json!({
        "segments": last.segments, "bytes": last.bytes,
        "batches": last.batches, "records": last.records,
        "found": messages, "found_total": count,
    });
    shell.answer(&answer, || text(args, &last, &found, count))?;
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

fn text(
    args: &Args,
    last: &VerifyReply,
    found: &[esker_client::v1::Error],
    count: usize,
) -> String {
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
