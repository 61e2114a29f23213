//! crook map

use serde_json::{Value, json};
use sheepdog::{Extent, ExtentKind};

use crate::cli::Map;
use crate::failure::Result;
use crate::output::{self, Output};
use crate::session::Session;

pub fn run(session: &Session, output: &Output, args: Map) -> Result<()> {
    let read = async {
        let vdi = session.open_readable(&args.vdi).await?;
        vdi.block_status(0, vdi.size()).await
    };
    let extents = session.run("reading", "", read)?;
    let values: Vec<Value> = extents.iter().map(value).collect();
    output.result(&values, || {
        let rows: Vec<Vec<String>> = extents.iter().map(row).collect();
        output::table(&["OFFSET", "LENGTH", "", "KIND"], &[true, true, true, false], &rows)
    })
}

fn kind(extent: &Extent) -> &'static str {
    match extent.kind {
        ExtentKind::Hole => "hole",
        ExtentKind::Allocated => "allocated",
        ExtentKind::Shared => "shared",
    }
}

fn value(extent: &Extent) -> Value {
    json!({ "offset": extent.offset, "length": extent.len, "kind": kind(extent) })
}

fn row(extent: &Extent) -> Vec<String> {
    let numbers = [extent.offset.to_string(), extent.len.to_string()];
    let words = [output::size(extent.len), kind(extent).to_owned()];
    numbers.into_iter().chain(words).collect()
}
