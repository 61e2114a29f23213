//! crook info

use std::fmt::Write as _;

use crate::cli::Info;
use crate::failure::Result;
use crate::output::{self, Output};
use crate::session::Session;

pub fn run(session: &Session, output: &Output, args: Info) -> Result<()> {
    let read = async { session.open_readable(&args.vdi).await?.info().await };
    let info = session.run("reading", "", read)?;
    output.result(&output::info(&info), || text(&info))
}

fn text(info: &sheepdog::Info) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:<13}{value}");
    };
    line("name", info.name.to_string());
    if info.is_snapshot {
        line("tag", info.tag.as_ref().map(ToString::to_string).unwrap_or_default());
        line("snapshot", info.snapshot_id.to_string());
    }
    line("size", format!("{} ({} bytes)", output::size(info.size), info.size));
    line("used", output::size(info.allocated));
    line("objects", output::size(info.object_size));
    match info.erasure_code {
        Some((data, parity)) => line("strips", format!("{data} of data, {parity} of parity")),
        None => line("copies", info.copies.to_string()),
    }
    if info.hypervolume {
        line("kind", "hypervolume".into());
    }
    line("created", output::date(info.created));
    if let Some(taken) = info.snapshot_taken {
        line("taken", output::date(taken));
    }
    line("id", format!("{:x}", info.vdi_id));
    if let Some(parent) = info.parent_vdi_id {
        line("parent", format!("{parent:x}"));
    }
    text
}
