//! crook create

use serde_json::json;
use sheepdog::CreateOptions;

use crate::cli;
use crate::failure::Result;
use crate::output::{self, Output};
use crate::session::Session;

pub fn run(session: &Session, output: &Output, args: cli::Create) -> Result<()> {
    let options = options(args.size, &args.options);
    let create = async { Ok(session.cluster.create_with(&args.name, &options).await?) };
    let left = format!("VDI \"{}\" may be there, and be preallocated in part", args.name);
    session.run("creating a VDI", &left, create)?;
    let text = format!("created {}, {}", args.name, output::size(args.size));
    output.done(json!({ "created": args.name, "size": args.size }), &text)
}

pub fn options(size: u64, args: &cli::CreateOptions) -> CreateOptions {
    let mut options =
        CreateOptions::new(size).preallocate(args.preallocate).hypervolume(args.hypervolume);
    if let Some(copies) = args.copies {
        options = options.copies(copies);
    }
    if let Some((data, parity)) = args.erasure_code {
        options = options.erasure_code(data, parity);
    }
    if let Some(bytes) = args.object_size {
        options = options.object_size(bytes);
    }
    options
}
