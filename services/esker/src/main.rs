//! The one binary. It says what it is until the data path behind its commands stands.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = concat!(
        "esker ",
        env!("CARGO_PKG_VERSION"),
        ": no command is built yet\n"
    );
    #[expect(clippy::disallowed_methods, reason = "the binary speaks to a terminal")]
    let _ = std::io::stdout().write_all(line.as_bytes());
    ExitCode::from(2)
}
