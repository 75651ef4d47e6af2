//! A MinIO of a test's own: started, frozen, killed, and started again where it was.
//!
//! ```text
//!   folder/data/<bucket>/…     its one drive; a folder in it is a bucket
//!   folder/home/               its home and certificates, both empty
//!   folder/minio-<n>.log       what it said after its n-th start
//! ```
//!
//! The binary is named by `ESKER_MINIO`; `.ci/minio` makes it and prints its path.

#![expect(
    clippy::disallowed_methods,
    reason = "a test server is a process: what it does in real time is not ours to simulate"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use esker_env::{Entropy, OsEntropy};

use crate::open::Options;

/// Where the binary is, for tests.
const BINARY_VARIABLE: &str = "ESKER_MINIO";
/// The user that it knows.
const USER: &str = "esker";
/// Ports to draw from: below those that the system gives to outgoing connections, so that nobody
/// takes ours while the server is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports to try, one after the other.
const PORTS_TRIED_MAX: u32 = 16;
/// Looks at a server that is coming up, or at one that is being frozen.
const LOOKS_MAX: u32 = 1200;
/// Rest between two looks: with the above, a minute in all.
const LOOK_REST: Duration = Duration::from_millis(50);
/// Time for one answer to a look.
const LOOK_TIMEOUT: Duration = Duration::from_millis(250);
/// What it is asked then.
const READY: &[u8] =
    b"GET /minio/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// Bytes of its log that an error repeats, from the end.
const LOG_TAIL_BYTES: usize = 2000;

/// A MinIO on loopback. Dropping it kills it, also when a test panics; when the whole test process
/// is killed, it goes too. What it stored stays in its folder.
///
/// Its calls block the thread: on a runtime, use one with several.
pub struct Minio {
    binary: PathBuf,
    folder: PathBuf,
    port: u16,
    secret: String,
    starts: u32,
    server: Option<Server>,
}

/// A running server, and a shell that kills it when this process is gone.
#[derive(Debug)]
struct Server {
    process: Child,
    guardian: Child,
}

/// What a look at a server that is coming up shows.
enum Look {
    Ready,
    NotYet,
    PortTaken,
}

impl Minio {
    /// The binary that `ESKER_MINIO` names; `None` if the variable is missing or empty.
    ///
    /// # Panics
    /// If it is missing where `CI` is set: there, a test that does not run must not pass.
    #[must_use]
    pub fn binary() -> Option<PathBuf> {
        let named = std::env::var_os(BINARY_VARIABLE).filter(|path| !path.is_empty());
        assert!(
            named.is_some() || std::env::var_os("CI").is_none(),
            "{BINARY_VARIABLE} is not set, and CI is: set it to what `.ci/minio` prints"
        );
        named.map(PathBuf::from)
    }

    /// Starts `binary` with its data in `folder`, which is made if missing, and waits until it
    /// serves: half a second, at most a minute. It takes a free port and keeps it.
    ///
    /// # Errors
    /// The binary cannot be run, ends before it serves, or takes too long; with the end of its log.
    pub fn start(binary: &Path, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder.join("data"))?;
        fs::create_dir_all(folder.join("home"))?;
        let mut minio = Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            port: 0,
            secret: format!("{:032x}", OsEntropy.next_u128()),
            starts: 0,
            server: None,
        };
        for _ in 0..PORTS_TRIED_MAX {
            let drawn = OsEntropy.next_u64() % (PORTS.len() as u64);
            minio.port = PORTS.start + u16::try_from(drawn).expect("below the number of ports");
            if minio.serve()? {
                return Ok(minio);
            }
        }
        Err(minio.failed("found no free port"))
    }

    /// Makes an empty bucket, unless it is there. For a server with one drive, a folder is one.
    ///
    /// # Errors
    /// As the file system says.
    pub fn make_bucket(&self, name: &str) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("data").join(name))
    }

    /// Where it serves: `http://127.0.0.1:port`, the same for as long as it lives.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The variables by which a process finds it: `AWS_ENDPOINT` and so on.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        [
            ("AWS_ENDPOINT", self.endpoint()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", USER.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// How to open `s3://bucket/prefix` on it, with the default budget.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            environment: self.environment(),
            ..Options::default()
        }
    }

    /// Stops it in its tracks (SIGSTOP): connections are still taken, nothing is answered. Returns
    /// once that is so.
    ///
    /// # Errors
    /// It does not run, or answers still after a minute.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("STOP")?;
        for _ in 0..LOOKS_MAX {
            if !self.answers() {
                return Ok(());
            }
            std::thread::sleep(LOOK_REST);
        }
        Err(self.failed("was frozen and answers still"))
    }

    /// Lets a frozen server go on (SIGCONT): it takes up what waited.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    /// Kills it (SIGKILL) and waits for its end. From then on connections are refused.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it again on the same port, data and credentials, after killing it if it runs.
    ///
    /// # Errors
    /// As [`Minio::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        if self.serve()? {
            return Ok(());
        }
        Err(self.failed("lost its port to another process while it was down"))
    }

    /// Starts it on its port and waits until it serves; false if the port is taken.
    fn serve(&mut self) -> io::Result<bool> {
        self.starts += 1;
        self.server = Some(self.spawn()?);
        for _ in 0..LOOKS_MAX {
            match self.look()? {
                Look::Ready => return Ok(true),
                Look::PortTaken => {
                    self.server = None;
                    return Ok(false);
                }
                Look::NotYet => std::thread::sleep(LOOK_REST),
            }
        }
        Err(self.failed("did not come up within a minute"))
    }

    fn spawn(&self) -> io::Result<Server> {
        let home = self.folder.join("home");
        let said = File::create(self.log())?;
        let process = Command::new(&self.binary)
            .arg("server")
            .args(["--address", &self.address().to_string()])
            .args([Path::new("--certs-dir"), &home])
            .arg(self.folder.join("data"))
            // Nothing of the user's own MinIO, and no questions to the network.
            .env_clear()
            .envs([
                ("MINIO_ROOT_USER", USER),
                ("MINIO_ROOT_PASSWORD", &self.secret),
            ])
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")])
            .env("HOME", &home)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .map_err(|error| {
                let binary = self.binary.display();
                io::Error::new(error.kind(), format!("cannot run `{binary}`: {error}"))
            })?;
        Server::guarded(process)
    }

    fn look(&mut self) -> io::Result<Look> {
        let server = self.server.as_mut().expect("it was just spawned");
        let ended = server.process.try_wait()?;
        let said = fs::read_to_string(self.log())?;
        if let Some(status) = ended {
            if said.contains("port is already in use") {
                return Ok(Look::PortTaken);
            }
            return Err(self.failed(&format!("ended with {status} before it served")));
        }
        // It names its address once it has it. Without that line, another server may answer there.
        if said.contains(&self.endpoint()) && self.answers() {
            return Ok(Look::Ready);
        }
        Ok(Look::NotYet)
    }

    /// Whether it says in time that it is ready.
    fn answers(&self) -> bool {
        let asked = || -> io::Result<[u8; 12]> {
            let mut connection = TcpStream::connect_timeout(&self.address(), LOOK_TIMEOUT)?;
            connection.set_read_timeout(Some(LOOK_TIMEOUT))?;
            connection.write_all(READY)?;
            let mut status = [0; "HTTP/1.x 200".len()];
            connection.read_exact(&mut status)?;
            Ok(status)
        };
        asked().is_ok_and(|status| status.ends_with(b" 200"))
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        let Some(server) = &self.server else {
            return Err(self.failed(&format!("does not run and cannot be sent SIG{name}")));
        };
        let process = server.process.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &process])
            .status()?;
        if sent.success() {
            return Ok(());
        }
        Err(self.failed(&format!("could not be sent SIG{name}")))
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("minio-{}.log", self.starts))
    }

    fn failed(&self, how: &str) -> io::Error {
        let said = fs::read(self.log()).unwrap_or_default();
        let tail = &said[said.len().saturating_sub(LOG_TAIL_BYTES)..];
        let tail = String::from_utf8_lossy(tail);
        io::Error::other(format!(
            "MinIO on {} {how}; it said: {tail}",
            self.address()
        ))
    }
}

impl Server {
    /// With a guardian, which waits for the end of its input: this process holds the other end.
    fn guarded(mut process: Child) -> io::Result<Self> {
        let spawned = Command::new("sh")
            .args(["-c", r#"cat >/dev/null; kill -s KILL "$1""#, "sh"])
            .arg(process.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(guardian) => Ok(Self { process, guardian }),
            Err(error) => {
                end(&mut process);
                Err(error)
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guardian first: once the server is reaped, its number may be another's.
        end(&mut self.guardian);
        end(&mut self.process);
    }
}

/// Kills a child and waits for its end. Neither fails unless it has ended already.
fn end(process: &mut Child) {
    process.kill().ok();
    process.wait().ok();
}

impl fmt::Debug for Minio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minio")
            .field("endpoint", &self.endpoint())
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
