//! Scenarios: commands in a small language, each followed by what apply answered. The files under
//! `scenarios/` are both input and expectation: lines that begin with four spaces are answers.
//! `ESKER_BLESS=1 cargo test -p esker-shard --test scenarios` writes the answers anew; commit them
//! only if you understand every line that changed.

#![expect(clippy::disallowed_methods, reason = "tests read their own files")]

mod script; // the language: a line in, a command out

use std::path::{Path, PathBuf};

use script::Stage;

const ANSWER: &str = "    ";

#[test]
fn scenarios_answer_as_written() {
    let bless = std::env::var_os("ESKER_BLESS").is_some();
    let files = scenario_files();
    assert!(files.len() >= 8, "scenarios are missing: {files:?}");
    let mut differing = Vec::new();
    for file in files {
        let written = std::fs::read_to_string(&file).expect("a scenario");
        let played = play(&file, &written);
        if bless {
            std::fs::write(&file, &played).expect("write a scenario");
        } else if played != written {
            differing.push(first_difference(&file, &written, &played));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn scenario_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(folder).expect("the folder of scenarios");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// The scenario with the answers that this build gives.
fn play(file: &Path, written: &str) -> String {
    let mut stage = Stage::default();
    let mut played = String::new();
    for (number, line) in (1..)
        .zip(written.lines())
        .filter(|(_, l)| !l.starts_with(ANSWER))
    {
        played.push_str(line);
        played.push('\n');
        let spoken = line.split('#').next().unwrap_or_default().trim();
        if spoken.is_empty() {
            continue;
        }
        let answers = stage.speak(spoken);
        assert!(answers.is_some(), "{}:{number}: {line}", file.display());
        for answer in answers.into_iter().flatten() {
            played.push_str(ANSWER);
            played.push_str(&answer);
            played.push('\n');
        }
    }
    played
}

fn first_difference(file: &Path, written: &str, played: &str) -> String {
    let mut lines = written.lines().zip(played.lines()).zip(1..);
    let differing = lines.find(|((a, b), _)| a != b);
    let ((written, played), number) = differing.unwrap_or((("", "more or fewer lines"), 0));
    format!(
        "{}:{number}\n  written {written}\n  played  {played}",
        file.display()
    )
}
