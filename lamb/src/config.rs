//! What MAKE_FS says about the cluster (4.15), kept in a small text file.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sheepdog_proto::op::cluster_flag;
use sheepdog_proto::{DEFAULT_BLOCK_SIZE_SHIFT, time_from_unix};

const FILE: &str = "cluster";

/// Cluster flags that make sense here: one node, whose disks are nobody's business.
const KNOWN_FLAGS: u16 = cluster_flag::STRICT
    | cluster_flag::AUTO_VNODES
    | cluster_flag::USE_LOCK
    | cluster_flag::RECYCLE_VID;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A protocol timestamp, never 0: to clients that means "not formatted" (6.2).
    pub ctime: u64,
    pub flags: u16,
    pub copies: u8,
    pub copy_policy: u8,
    pub block_size_shift: u8,
    /// "plain" or "tree": whatever was asked for; it is stored the same way.
    pub store: String,
    pub disable_recovery: bool,
    /// References are kept as the real server keeps them (`--mimic-1.0`).
    pub mimic: bool,
    /// The objects of the cluster before are still being removed.
    pub wiping: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ctime: now(),
            flags: cluster_flag::AUTO_VNODES,
            copies: 1,
            copy_policy: 0,
            block_size_shift: DEFAULT_BLOCK_SIZE_SHIFT,
            store: "plain".to_owned(),
            disable_recovery: false,
            mimic: false,
            wiping: false,
        }
    }
}

/// The time, as the protocol says it.
pub fn now() -> u64 {
    time_from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Config {
    pub fn set_flags(&mut self, flags: u16) {
        self.flags = flags & KNOWN_FLAGS | cluster_flag::AUTO_VNODES;
    }

    /// The name under which a configuration is written.
    pub const TEMP: &str = "cluster.new";
    /// That of the one that follows once everything is removed.
    pub const NEXT: &str = "cluster.next";

    /// The configuration in `dir`, or None where there is none yet.
    pub fn load(dir: &Path) -> io::Result<Option<Config>> {
        let text = match fs::read_to_string(dir.join(FILE)) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let bad = |line: &str| {
            let path = dir.join(FILE);
            io::Error::new(ErrorKind::InvalidData, format!("{}: {line:?}", path.display()))
        };
        let mut config = Config::default();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').ok_or_else(|| bad(line))?;
            let number = || value.parse::<u64>().map_err(|_| bad(line));
            let byte = || value.parse::<u8>().map_err(|_| bad(line));
            match key {
                "lamb" if value == "1" => {}
                "ctime" => config.ctime = number()?,
                "flags" => config.set_flags(value.parse().map_err(|_| bad(line))?),
                "copies" => config.copies = byte()?,
                "copy_policy" => config.copy_policy = byte()?,
                "block_size_shift" => config.block_size_shift = byte()?,
                "store" => config.store = value.to_owned(),
                "disable_recovery" => config.disable_recovery = byte()? != 0,
                "mimic" => config.mimic = byte()? != 0,
                "wiping" => config.wiping = byte()? != 0,
                _ => return Err(bad(line)),
            }
        }
        Ok(Some(config))
    }

    /// Replaces the configuration in `dir`, whole and for good.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        self.write_aside(dir, Config::TEMP)?;
        Config::put_in_place(dir, Config::TEMP)
    }

    /// Makes the configuration that was written under `name` the one that counts.
    pub fn put_in_place(dir: &Path, name: &str) -> io::Result<()> {
        fs::rename(dir.join(name), dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }

    /// Writes the configuration under another name.
    pub fn write_aside(&self, dir: &Path, name: &str) -> io::Result<()> {
        let text = format!(
            "lamb 1\nctime {}\nflags {}\ncopies {}\ncopy_policy {}\nblock_size_shift {}\n\
             store {}\ndisable_recovery {}\nmimic {}\nwiping {}\n",
            self.ctime,
            self.flags,
            self.copies,
            self.copy_policy,
            self.block_size_shift,
            self.store,
            u8::from(self.disable_recovery),
            u8::from(self.mimic),
            u8::from(self.wiping),
        );
        let mut file = File::create(dir.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Config::load(dir.path()).unwrap(), None);
        let mut config = Config { copies: 3, wiping: true, ..Config::default() };
        config.set_flags(0xffff);
        config.save(dir.path()).unwrap();
        assert_eq!(Config::load(dir.path()).unwrap(), Some(config));
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "lamb 2\n").unwrap();
        assert!(Config::load(dir.path()).is_err());
    }
}
