// Included by the examples of the documentation: a lamb for each, which is gone afterwards.

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

    #[allow(dead_code)]
    pub fn server() -> Server {
        server_with(&[])
    }

    /// The lamb that LAMB names, or that `make build` has made. Where there is none the example ends
    /// here, and says so.
    pub fn server_with(options: &[&str]) -> Server {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|up| up.join("build/bin/lamb"));
        let named = std::env::var_os("LAMB").map(PathBuf::from);
        let Some(lamb) = named.into_iter().chain(built).find(|path| path.exists()) else {
            eprintln!("skipped: no lamb, make build makes one");
            std::process::exit(0);
        };
        let name = format!("sheepdog-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let mut child = Command::new(lamb)
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .arg(&directory)
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
        Server { child, directory, address }
    }

    #[allow(dead_code)]
    impl Server {
        pub fn address(&self) -> &str {
            &self.address
        }

        pub fn socket(&self) -> String {
            format!("unix:{}", self.directory.join("sock").display())
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
