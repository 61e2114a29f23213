//! crook attr

use std::io::{self, Read};

use serde_json::json;

use crate::cli::Attr;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::session::Session;

/// The longest value, and a byte more, to find out that there is more.
const TOO_LONG: u64 = (64 << 10) + 1;

pub fn run(session: &Session, output: &Output, command: Attr) -> Result<()> {
    let cluster = &session.cluster;
    match command {
        Attr::Get { name, key } => {
            let get = async { Ok(cluster.attribute(&name, &key).await?) };
            let value = session.run("reading", "", get)?;
            if !output.json {
                // As it is, to be read by whatever wrote it.
                return output.print(&value);
            }
            let text = String::from_utf8(value);
            let bytes = text.as_ref().err().map(|error| error.as_bytes());
            let value = json!({
                "name": name, "key": key, "value": text.as_ref().ok(), "bytes": bytes,
            });
            output.result(&value, String::new)
        }
        Attr::Set { name, key, value } => {
            let value = if value == "-" { read()? } else { value.into_bytes() };
            let set = async { Ok(cluster.set_attribute(&name, &key, &value).await?) };
            let left = "it has its old value, or the new one";
            session.run("setting an attribute", left, set)?;
            output.done(json!({ "name": name, "set": key }), &format!("set {key} of {name}"))
        }
        Attr::Rm { name, key } => {
            let remove = async { Ok(cluster.remove_attribute(&name, &key).await?) };
            session.run("deleting an attribute", "it may be gone", remove)?;
            output
                .done(json!({ "name": name, "deleted": key }), &format!("deleted {key} of {name}"))
        }
    }
}

fn read() -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let read = io::stdin().lock().take(TOO_LONG).read_to_end(&mut value);
    read.map_err(|error| Failure::io("standard input", error))?;
    Ok(value)
}
