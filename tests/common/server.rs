//! The server under test: a lamb of the test's own, or the cluster at SD_TEST_ADDR.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a cluster may take to remove what was released: it does so in the background. So does
/// a lamb that mimics one.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);
const REMOVAL_LIMIT_OF_LAMB: Duration = Duration::from_secs(2);

pub struct Server {
    /// Gateways of the cluster.
    gateways: Vec<String>,
    /// Where the objects are, if that can be looked at.
    store: Option<PathBuf>,
    lamb: Option<Lamb>,
}

impl Server {
    /// The cluster that SD_TEST_ADDR names (several gateways with commas between), if it does.
    /// SD_TEST_STORE_DIR is the directory with the stores of all its nodes.
    pub fn from_env() -> Option<Server> {
        let addresses = env::var("SD_TEST_ADDR").ok()?;
        let gateways = addresses.split(',').map(str::to_owned).collect();
        let store = env::var_os("SD_TEST_STORE_DIR").map(PathBuf::from);
        Some(Server { gateways, store, lamb: None })
    }

    /// A lamb with these arguments besides its directory, ended when dropped.
    pub fn lamb(arguments: &[&str]) -> Server {
        let (lamb, address) = Lamb::start(arguments);
        Server { gateways: vec![address], store: Some(lamb.dir.clone()), lamb: Some(lamb) }
    }

    /// The same, with clients sent to another address.
    pub fn behind(self, address: SocketAddr) -> Server {
        Server { gateways: vec![address.to_string()], ..self }
    }

    /// Where the lamb listens.
    pub fn socket_address(&self) -> SocketAddr {
        self.gateways[0].parse().expect("a lamb's address")
    }

    /// One gateway of the cluster, counted round.
    pub fn gateway(&self, number: usize) -> &str {
        &self.gateways[number % self.gateways.len()]
    }

    /// The address for client number `client`: each begins with another gateway.
    pub fn address(&self, client: usize) -> String {
        let mut gateways = self.gateways.clone();
        gateways.rotate_left(client % self.gateways.len());
        gateways.join(",")
    }

    /// What the store has; None where there is no looking at it.
    pub fn objects(&self) -> Option<Objects> {
        let (mut data, mut ledgers) = (HashSet::new(), HashSet::new());
        walk(self.store.as_ref()?, &mut |path| {
            let part = |name| path.iter().any(|part| part == name);
            if self.lamb.is_some() {
                // KIND/VDI/INDEX
                if part("data") {
                    data.insert(path.display().to_string());
                }
                return;
            }
            // Files are called by their object's id, of which the first two digits tell the kind;
            // .stale holds what recovery has moved away.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match name.get(..16) {
                Some(id) if part("obj") && !part(".stale") && id.starts_with("00") => {
                    data.insert(id.to_owned())
                }
                Some(id) if part("obj") && !part(".stale") && id.starts_with("08") => {
                    ledgers.insert(id.to_owned())
                }
                _ => false,
            };
        });
        Some(Objects { data: data.len(), ledgers: ledgers.len() })
    }

    /// Waits until the store has what it should, as long as that may take. What it has instead is
    /// the error.
    pub fn await_objects(&self, fits: impl Fn(Objects) -> bool) -> Result<(), Objects> {
        let time = if self.lamb.is_some() { REMOVAL_LIMIT_OF_LAMB } else { REMOVAL_LIMIT };
        let limit = Instant::now() + time;
        loop {
            match self.objects() {
                None => return Ok(()),
                Some(found) if fits(found) => return Ok(()),
                Some(found) if Instant::now() > limit => return Err(found),
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Numbers of objects, each counted once however many copies it has.
#[derive(Clone, Copy, Default, Debug)]
pub struct Objects {
    pub data: usize,
    /// The server's records of objects that were shared and are not by all any more (3.7).
    pub ledgers: usize,
}

/// Calls `each` for every file below a directory; what disappears meanwhile is passed over.
fn walk(dir: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), each),
            Ok(_) => each(&entry.path()),
            Err(_) => {}
        }
    }
}

struct Lamb {
    process: Child,
    dir: PathBuf,
}

impl Lamb {
    fn start(arguments: &[&str]) -> (Lamb, String) {
        let mut command = Command::new(lamb_binary());
        let dir = unused_directory();
        command.args(["--no-sync", "--listen", "127.0.0.1:0"]).args(arguments).arg(&dir);
        end_with_test(&mut command);
        let process = command.stdout(Stdio::piped()).spawn().expect("lamb starts");
        let mut lamb = Lamb { process, dir };
        let output = lamb.process.stdout.take().expect("a pipe");
        let line = BufReader::new(output).lines().next().expect("lamb serves").unwrap();
        let address = line.strip_prefix("lamb: listening on ").expect("an address").to_owned();
        (lamb, address)
    }
}

impl Drop for Lamb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A directory of which nobody has the name; short enough for the path of a Unix socket.
fn unused_directory() -> PathBuf {
    for n in 0.. {
        let dir = PathBuf::from(format!("/tmp/sd-test-{}-{n}", std::process::id()));
        match fs::create_dir(&dir) {
            Ok(()) => return dir,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("{}: {error}", dir.display()),
        }
    }
    unreachable!()
}

/// A test that is killed leaves no server behind.
#[allow(unsafe_code)]
fn end_with_test(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        // SAFETY: a single system call, without any memory.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Whether the lamb that tests would start knows this option.
pub fn lamb_knows(option: &str) -> bool {
    let output = Command::new(lamb_binary()).arg("--help").output().expect("lamb --help");
    String::from_utf8_lossy(&output.stdout).contains(option)
}

/// The lamb that LAMB names, or the one that was built last beside this test.
fn lamb_binary() -> PathBuf {
    if let Some(path) = env::var_os("LAMB") {
        return path.into();
    }
    // TARGET/PROFILE/deps/TEST
    let test = env::current_exe().expect("the path of this program");
    let target = test.ancestors().nth(3).expect("a target directory");
    let built = ["release", "debug"].map(|profile| target.join(profile).join("lamb"));
    let built = built.into_iter().filter_map(|path| {
        let time = path.metadata().and_then(|file| file.modified()).ok()?;
        Some((time, path))
    });
    match built.max() {
        Some((_, path)) => path,
        None => panic!("no lamb in {}: cargo build -p lamb, or set LAMB", target.display()),
    }
}
