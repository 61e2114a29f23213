//! crook resize

use serde_json::json;

use crate::cli::{NewSize, Resize};
use crate::failure::{Failure, Result};
use crate::output::{self, Output};
use crate::session::Session;

pub fn run(session: &Session, output: &Output, args: Resize) -> Result<()> {
    let name = &args.name;
    let resize = async {
        let vdi = session.cluster.open(name).await?;
        let old = vdi.size();
        let new = match args.size {
            NewSize::To(size) => Some(size),
            NewSize::By(more) => old.checked_add_signed(more),
        };
        let new = new.ok_or_else(|| Failure::usage(format!("{name} has {old} bytes")))?;
        if new < old && !args.shrink {
            let (new, old) = (output::size(new), output::size(old));
            return Err(Failure::usage(format!(
                "{name} would shrink from {old} to {new}, and lose what is behind that: --shrink"
            )));
        }
        vdi.resize(new).await?;
        vdi.close().await?;
        Ok((old, new))
    };
    let left = "what is cut off may be gone in part; crook info tells the size";
    let (old, new) = session.run(&format!("resizing {name}"), left, resize)?;
    let text = format!("resized {name} from {} to {}", output::size(old), output::size(new));
    output.done(json!({ "resized": name, "from": old, "to": new }), &text)
}
