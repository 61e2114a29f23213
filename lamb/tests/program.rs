//! The program from outside: arguments, what it prints, sockets, signals.

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use common::Program;
use sheepdog_proto::zerocopy::IntoBytes;
use sheepdog_proto::{Request, op};

/// Runs the program, which refuses; returns what it says.
fn refusal(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn signal(program: &Program, name: &str) {
    let status =
        Command::new("kill").args([name, &program.child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn it_says_where_it_listens_and_ends_in_order() {
    for name in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/on/the/way");
        let mut program = Program::start(&dir, &["--no-sync"]);
        assert_ne!(program.address.port(), 0);
        let sock = dir.join("sock");
        assert_eq!(program.lines[1], format!("lamb: listening on {}", sock.display()));
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let meta = std::fs::metadata(&sock).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);

        let mut stream = UnixStream::connect(&sock).unwrap();
        let request = Request::new(op::GET_CLUSTER_DEFAULT, 0, [0; 32]);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = [0; 48];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[1], op::GET_CLUSTER_DEFAULT);

        // An idle connection does not keep it from ending.
        signal(&program, name);
        assert_eq!(program.child.wait().unwrap().code(), Some(0));
        assert!(!sock.exists());
        assert_eq!(stream.read(&mut answer).unwrap(), 0);
    }
}

#[test]
fn a_directory_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &["--no-sync"]);
    let text = refusal(Program::command(dir.path(), &[]));
    assert!(text.contains("in use by another lamb"), "{text}");
    program.assert_alive();
    assert!(UnixStream::connect(dir.path().join("sock")).is_ok(), "its socket is untouched");
    program.kill();
    // Neither the lock nor the socket of a dead server is in the way.
    assert!(dir.path().join("sock").exists());
    Program::start(dir.path(), &["--no-sync"]).assert_alive();
}

#[test]
fn it_does_not_serve_the_world_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let text = refusal(Program::command(dir.path(), &["--listen", address]));
        assert!(text.contains("no authentication") && text.contains("--allow-remote"), "{text}");
    }
    Program::start(dir.path(), &["--listen", "0.0.0.0:0", "--allow-remote"]).assert_alive();
}

#[test]
fn it_leaves_other_peoples_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let args = ["--unix", path.to_str().unwrap()];
    let text = refusal(Program::command(&dir.path().join("store"), &args));
    assert!(text.contains("not a socket"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), b"data");

    let path = dir.path().join("other.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let args = ["--unix", path.to_str().unwrap()];
    let text = refusal(Program::command(&dir.path().join("store"), &args));
    assert!(text.contains("another program listens there"), "{text}");
}

#[test]
fn it_does_not_take_over_a_directory_of_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("temp")).unwrap();
    std::fs::write(dir.path().join("temp/thesis"), "years").unwrap();
    let text = refusal(Program::command(dir.path(), &[]));
    assert!(text.contains("not empty (temp)"), "{text}");
    assert!(dir.path().join("temp/thesis").exists());
}

#[test]
fn what_cannot_work_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let text = refusal(Program::command(&file, &[]));
    assert!(text.contains("cannot create"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = refusal(Program::command(&dir.path().join("store"), &["--listen", &address]));
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    let long = dir.path().join("x".repeat(120));
    let args = ["--unix", long.to_str().unwrap()];
    let text = refusal(Program::command(&dir.path().join("store"), &args));
    assert!(text.contains("cannot listen on") && text.contains("--unix says"), "{text}");
    // The usual socket's path follows from the directory's.
    let text = refusal(Program::command(&dir.path().join("y".repeat(120)), &[]));
    assert!(text.contains("--unix says"), "{text}");
    for size in ["63M", "1T", "", "-5M"] {
        let mut command = Program::command(&dir.path().join("store"), &[]);
        let output = command.arg(format!("--memory={size}")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{size}");
    }
}

/// lamb as systemd starts it, with a socket as its descriptor 3.
fn with_socket(socket: impl Into<OwnedFd>, dir: &Path, args: &[&str]) -> Command {
    let script = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;
    let lamb = Program::command(dir, &[]);
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(lamb.get_program()).args(args).arg(dir);
    command.stdin(socket.into());
    command
}

#[test]
fn it_serves_on_sockets_that_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let store = dir.path().join("store");
    let get = Request::new(op::GET_CLUSTER_DEFAULT, 0, [0; 32]);

    // In the place of the port that it would listen on, and from before it has started.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let mut early = common::Client::connect(address);
    let mut command = with_socket(tcp, &store, &["--no-sync"]);
    command.env("NOTIFY_SOCKET", dir.path().join("notify"));
    let mut program = Program::run(command);
    assert_eq!(program.lines[0], format!("lamb: listening on {address}"));
    assert_eq!(program.lines[1], format!("lamb: listening on {}", store.join("sock").display()));
    let mut said = [0; 64];
    let len = notify.recv(&mut said).unwrap();
    assert_eq!(&said[..len], b"READY=1\n");
    assert!(early.result(get, &[]).is_success());
    assert!(program.client().result(get, &[]).is_success());
    program.terminate();

    // A Unix socket in the place of its own; whoever has made it takes it away.
    let path = dir.path().join("passed");
    let unix = UnixListener::bind(&path).unwrap();
    let args = ["--no-sync", "--listen", "127.0.0.1:0"];
    let mut program = Program::run(with_socket(unix, &store, &args));
    assert_eq!(program.lines[1], format!("lamb: listening on {}", path.display()));
    assert!(!store.join("sock").exists());
    let mut stream = UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut stream, get.as_bytes()).unwrap();
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[1], op::GET_CLUSTER_DEFAULT);
    program.terminate();
    assert!(path.exists());
}

#[test]
fn it_does_not_take_every_socket() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |mut command: Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(with_socket(TcpListener::bind("0.0.0.0:0").unwrap(), dir.path(), &[]));
    assert!(text.contains("no authentication"), "{text}");
    let (one, _other) = UnixStream::pair().unwrap();
    for socket in [OwnedFd::from(UnixDatagram::unbound().unwrap()), one.into()] {
        let text = refused(with_socket(socket, dir.path(), &[]));
        assert!(text.contains("descriptor 3: not a TCP or Unix stream socket that"), "{text}");
    }
}
