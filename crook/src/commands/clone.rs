//! crook clone

use serde_json::json;

use super::snapshot;
use crate::cli::CloneVdi;
use crate::failure::Result;
use crate::output::Output;
use crate::session::Session;

pub fn run(session: &Session, output: &Output, args: CloneVdi) -> Result<()> {
    let id = snapshot(&args.snapshot)?;
    let CloneVdi { snapshot: source, name, copies } = args;
    let clone = async {
        let snapshot = session.cluster.open_snapshot(&source.name, id).await?;
        Ok(snapshot.clone_with_copies(&name, copies.unwrap_or(0)).await?)
    };
    session.run(&format!("cloning {source}"), &format!("VDI \"{name}\" may be there"), clone)?;
    let text = format!("created {name} from {source}");
    output.done(json!({ "created": name, "from": source.to_string() }), &text)
}
