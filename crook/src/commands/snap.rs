//! crook snap

use serde_json::json;

use super::{list, remove, snapshot};
use crate::cli::Snap;
use crate::failure::Result;
use crate::output::Output;
use crate::place::Target;
use crate::session::Session;

pub fn run(session: &Session, output: &Output, command: Snap) -> Result<()> {
    match command {
        Snap::Create { name, tag } => create(session, output, &name, &tag),
        Snap::Ls { name } => {
            let list = async { Ok(session.cluster.snapshots(&name).await?) };
            let infos = session.run("listing", "", list)?;
            list::show(output, &infos)
        }
        Snap::Rm { snapshots, force } => delete(session, output, &snapshots, force),
        Snap::Rollback { snapshot } => roll_back(session, output, &snapshot),
    }
}

/// Takes the lock of the VDI for that time, where the cluster has locks: code 6 where another client
/// has it.
fn create(session: &Session, output: &Output, name: &str, tag: &str) -> Result<()> {
    let take = async {
        let vdi = session.cluster.open(name).await?;
        let info = vdi.snapshot(tag).await?.info().await?;
        vdi.close().await?;
        Ok(info)
    };
    let left = format!("{name}@{tag} may be there, perhaps without its tag: crook snap ls {name}");
    let info = session.run("taking a snapshot", &left, take)?;
    let id = info.snapshot_id;
    let text = format!("created {name}@{tag}, number {id}");
    output.done(json!({ "created": format!("{name}@{tag}"), "snapshot_id": id }), &text)
}

fn delete(session: &Session, output: &Output, snapshots: &[Target], force: bool) -> Result<()> {
    for target in snapshots {
        snapshot(target)?;
    }
    let args = crate::cli::Remove { vdis: snapshots.to_vec(), snapshots: false, force };
    remove::run(session, output, args)
}

fn roll_back(session: &Session, output: &Output, target: &Target) -> Result<()> {
    let id = snapshot(target)?;
    let name = &target.name;
    let roll_back = async {
        let snapshot = session.cluster.open_snapshot(name, id).await?;
        Ok(snapshot.roll_back().await?)
    };
    let left = format!("{name} is what it was, or what {target} is");
    session.run(&format!("rolling back to {target}"), &left, roll_back)?;
    let text = format!("{name} is what {target} is");
    output.done(json!({ "rolled_back": name, "to": target.to_string() }), &text)
}
