//! crook ls

use sheepdog::Info;

use crate::cli::List;
use crate::failure::Result;
use crate::output::{self, Output};
use crate::session::Session;

pub fn run(session: &Session, output: &Output, args: List) -> Result<()> {
    if args.names && !args.snapshots {
        let list = async { Ok(session.cluster.list().await?) };
        let names = session.run("listing", "", list)?;
        return show_names(output, names.iter().map(ToString::to_string));
    }
    let infos = session.run("listing", "", collect(session, args.snapshots))?;
    if args.names {
        return show_names(output, infos.iter().map(full_name));
    }
    show(output, &infos)
}

fn show_names(output: &Output, names: impl Iterator<Item = String>) -> Result<()> {
    let names: Vec<String> = names.collect();
    output.result(&names, || names.iter().map(|name| format!("{name}\n")).collect())
}

pub fn show(output: &Output, infos: &[Info]) -> Result<()> {
    let values: Vec<_> = infos.iter().map(output::info).collect();
    output.result(&values, || {
        let rows: Vec<Vec<String>> = infos.iter().map(row).collect();
        let head = ["NAME", "SIZE", "USED", "COPIES", "CREATED", "ID"];
        output::table(&head, &[false, true, true, true, false, true], &rows)
    })
}

fn row(info: &Info) -> Vec<String> {
    vec![
        full_name(info),
        output::size(info.size),
        output::size(info.allocated),
        output::redundancy(info),
        output::date(info.snapshot_taken.unwrap_or(info.created)),
        if info.is_snapshot { info.snapshot_id.to_string() } else { String::new() },
    ]
}

/// As other commands take it.
fn full_name(info: &Info) -> String {
    match (&info.tag, info.is_snapshot) {
        (Some(tag), _) => format!("{}@{tag}", info.name),
        (None, true) => format!("{}@{}", info.name, info.snapshot_id),
        (None, false) => info.name.to_string(),
    }
}

async fn collect(session: &Session, snapshots: bool) -> Result<Vec<Info>> {
    let mut infos = Vec::new();
    for name in session.cluster.list().await? {
        if snapshots {
            infos.extend(session.cluster.snapshots(&name).await?);
        }
        let vdi = match session.cluster.open_read_only(&name).await {
            // Deleted just now.
            Err(error) if error.kind() == sheepdog::ErrorKind::NotFound => continue,
            vdi => vdi?,
        };
        match vdi.info().await {
            Err(error) if error.kind() == sheepdog::ErrorKind::NotFound => {}
            info => infos.push(info?),
        }
    }
    Ok(infos)
}
