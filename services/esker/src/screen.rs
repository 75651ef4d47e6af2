//! stdout, tables, progress.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::{Failure, of_stdout};

/// Writes `text` to stdout and flushes it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = out();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| of_stdout(&error))
}

/// Writes a line to stderr. Nobody is left to be told if that fails.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether a person sees stderr, and nothing else there.
pub(crate) fn is_apart() -> bool {
    io::stderr().is_terminal() && !out().is_terminal()
}

/// The process's stdout.
#[expect(clippy::disallowed_methods, reason = "the binary speaks to a terminal")]
pub(crate) fn out() -> io::Stdout {
    io::stdout()
}

/// Columns as wide as their widest cell; numbers are set right.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let numeric: Vec<_> = (0..heads.len())
        .map(|column| rows.iter().all(|row| is_number(&row[column])))
        .collect();
    let heads: Vec<_> = heads.iter().map(|head| (*head).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let gap = if at == 0 { "" } else { "  " };
            let width = widths[at];
            let _ = match numeric[at] {
                true => write!(line, "{gap}{cell:>width$}"),
                false => write!(line, "{gap}{cell:<width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit())
}

/// `1 batch`, `2 batches`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ if thing.ends_with("ch") => format!("{number} {thing}es"),
        _ => format!("{number} {thing}s"),
    }
}

/// Bytes in the unit that suits: `64.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Bytes per second in the unit that suits: `64.0 MiB/s`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for a person to read"
)]
pub(crate) fn rate(count: u64, seconds: f64) -> String {
    let rate = count as f64 / seconds.max(0.001);
    format!("{}/s", bytes(rate as u64))
}

/// What is shown while a command works: on stderr, and only on a terminal.
pub(crate) fn progress(total: Option<u64>, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr_with_hz(8);
    let bar = ProgressBar::with_draw_target(total, target);
    let style = ProgressStyle::with_template(template).expect("our templates are well formed");
    bar.with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let counts = [
            (0, "batch"),
            (1, "batch"),
            (2, "batch"),
            (1, "segment"),
            (9, "segment"),
        ];
        let texts = counts.map(|(number, thing)| count(number, thing));
        let expected = [
            "0 batches",
            "1 batch",
            "2 batches",
            "1 segment",
            "9 segments",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned(), "x".to_owned()],
            vec!["longer".to_owned(), "100".to_owned(), String::new()],
        ];
        let text = table(&["NAME", "N", "NOTE"], &rows);
        assert_eq!(text, "NAME      N  NOTE\na         1  x\nlonger  100\n");
    }
}
