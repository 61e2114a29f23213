//! crook rm

use serde_json::json;
use sheepdog::SnapshotId;

use super::forgive;
use crate::cli::Remove;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::place::Target;
use crate::session::Session;

pub fn run(session: &Session, output: &Output, args: Remove) -> Result<()> {
    let mut removed = Vec::new();
    let result = remove_all(session, &args, &mut removed);
    let names = removed.join(", ");
    match result {
        Err(failure) if removed.is_empty() => Err(failure),
        Err(failure) => Err(failure.and(format!("deleted before that: {names}"))),
        Ok(()) if removed.is_empty() => {
            output.done(json!({ "deleted": removed }), "nothing deleted")
        }
        Ok(()) => output.done(json!({ "deleted": removed }), &format!("deleted {names}")),
    }
}

fn remove_all(session: &Session, args: &Remove, removed: &mut Vec<String>) -> Result<()> {
    for target in &args.vdis {
        if args.snapshots && target.snapshot.is_none() {
            let list = async { Ok(session.cluster.snapshots(&target.name).await?) };
            let snapshots = forgive(session.run("listing snapshots", "", list), args.force)?;
            for info in snapshots.unwrap_or_default() {
                let snapshot = Some(SnapshotId::from(info.snapshot_id));
                let snapshot = Target { name: target.name.clone(), snapshot };
                remove(session, &snapshot, args.force, removed)?;
            }
            // There may be snapshots without a working VDI.
            let found = remove(session, target, true, removed)?;
            if !found && !args.force && removed.is_empty() {
                return Err(Failure::new(
                    crate::failure::Kind::NotFound,
                    format!("VDI \"{}\": no such VDI", target.name),
                ));
            }
            continue;
        }
        remove(session, target, args.force, removed)?;
    }
    Ok(())
}

/// Whether it was there.
pub fn remove(
    session: &Session,
    target: &Target,
    force: bool,
    removed: &mut Vec<String>,
) -> Result<bool> {
    let delete = async {
        match &target.snapshot {
            None => session.cluster.delete(&target.name).await?,
            Some(snapshot) => {
                session.cluster.delete_snapshot(&target.name, snapshot.clone()).await?;
            }
        }
        Ok(())
    };
    let doing = format!("deleting {target}");
    let left = "it may be gone in part; to delete it once more goes on with that";
    let found = forgive(session.run(&doing, left, delete), force)?.is_some();
    if found {
        removed.push(target.to_string());
    }
    Ok(found)
}
