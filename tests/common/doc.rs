// Included by the examples of the documentation, and by tests of the Rust API and of crook: a lamb for
// each, which is gone afterwards.

mod doc {
    use std::io::{BufRead, BufReader};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    pub struct Server {
        child: Child,
        directory: PathBuf,
        address: String,
    }

    /// The lamb that LAMB names, or that `make build` has made.
    fn lamb() -> Option<PathBuf> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|up| up.join("build/bin/lamb"));
        let named = std::env::var_os("LAMB").map(PathBuf::from);
        named.into_iter().chain(built).find(|path| path.exists())
    }

    /// Where there is no lamb the example ends here, and says so.
    #[allow(dead_code)]
    pub fn server() -> Server {
        if lamb().is_none() {
            eprintln!("skipped: no lamb, make build makes one");
            std::process::exit(0);
        }
        server_with(&[])
    }

    pub fn server_with(options: &[&str]) -> Server {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let lamb = lamb().expect("no lamb: make build makes one, LAMB names another");
        let name = format!("sheepdog-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let (child, address) = start(&lamb, options, &directory);
        Server { child, directory, address }
    }

    fn start(lamb: &Path, options: &[&str], directory: &Path) -> (Child, String) {
        let mut child = Command::new(lamb)
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("lamb: listening on ").map(String::from))
            .find(|address| !address.contains('/'))
            .unwrap();
        (child, address)
    }

    #[allow(dead_code)]
    impl Server {
        pub fn address(&self) -> &str {
            &self.address
        }

        pub fn directory(&self) -> &Path {
            &self.directory
        }

        pub fn socket(&self) -> String {
            format!("unix:{}", self.directory.join("sock").display())
        }

        /// Kills it, and starts it again on what it has stored, where its socket was.
        pub fn restart(&mut self, options: &[&str], meanwhile: impl FnOnce(&Path)) {
            self.end();
            meanwhile(&self.directory);
            let lamb = lamb().expect("it was there");
            (self.child, self.address) = start(&lamb, options, &self.directory);
        }

        /// Stops it: it answers nobody from now on.
        pub fn end(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.end();
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}
