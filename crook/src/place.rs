//! What is meant by the names on the command line.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sheepdog::SnapshotId;

/// A VDI, or a snapshot of one.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    pub name: String,
    pub snapshot: Option<SnapshotId>,
}

impl FromStr for Target {
    type Err = Infallible;

    /// After the last @ a number is the id of a snapshot, as other tools have it, anything else a tag.
    fn from_str(text: &str) -> Result<Target, Infallible> {
        Ok(match text.rsplit_once('@') {
            Some((name, snapshot)) if !name.is_empty() && !snapshot.is_empty() => {
                let is_number = snapshot.bytes().all(|byte| byte.is_ascii_digit());
                let id = snapshot.parse::<u32>().ok().filter(|_| is_number);
                let snapshot = id.map_or_else(|| snapshot.into(), SnapshotId::from);
                Target { name: name.into(), snapshot: Some(snapshot) }
            }
            _ => Target { name: text.into(), snapshot: None },
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            None => f.write_str(&self.name),
            Some(SnapshotId::Id(id)) => write!(f, "{}@{id}", self.name),
            Some(SnapshotId::Tag(tag)) => write!(f, "{}@{tag}", self.name),
        }
    }
}

/// One end of a copy.
#[derive(Clone, PartialEq, Debug)]
pub enum Place {
    /// Standard input or output.
    Pipe,
    Path(PathBuf),
    Vdi(Target),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Place, Infallible> {
        Ok(match text.strip_prefix("vdi:") {
            Some(name) => Place::Vdi(name.parse()?),
            None if text == "-" => Place::Pipe,
            None => Place::Path(text.into()),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Pipe => f.write_str("-"),
            Place::Path(path) => path.display().fmt(f),
            Place::Vdi(target) => write!(f, "vdi:{target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_and_said_again() {
        for (text, name, snapshot) in [
            ("disk", "disk", None),
            ("disk@monday", "disk", Some(SnapshotId::from("monday"))),
            ("disk@3", "disk", Some(SnapshotId::from(3))),
            ("a@b@c", "a@b", Some(SnapshotId::from("c"))),
            ("disk@+3", "disk", Some(SnapshotId::from("+3"))),
            ("disk@", "disk@", None),
            ("@x", "@x", None),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.name.as_str(), &target.snapshot), (name, &snapshot), "{text}");
            assert_eq!(target.to_string(), text);
        }
        for (text, place) in [("-", Place::Pipe), ("./vdi:a", Place::Path("./vdi:a".into()))] {
            assert_eq!(text.parse(), Ok(place));
        }
        assert!(matches!("vdi:a@1".parse(), Ok(Place::Vdi(target)) if target.snapshot.is_some()));
    }
}
