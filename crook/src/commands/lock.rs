//! crook lock

use serde_json::json;

use crate::cli::Lock;
use crate::failure::{Kind, Result};
use crate::output::Output;
use crate::session::Session;

pub fn run(session: &Session, output: &Output, command: Lock) -> Result<()> {
    match command {
        Lock::Show { name } => {
            let locked = session.run("looking at a lock", "", is_locked(session, &name))?;
            let value = json!({ "name": name, "locked": locked });
            output.result(&value, || match locked {
                true => format!("{name} is locked by another client\n"),
                false => format!("{name} is not locked\n"),
            })
        }
        Lock::Break { name } => {
            let give_back = async { Ok(session.cluster.break_lock(&name).await?) };
            session.run("breaking a lock", "it may be gone", give_back)?;
            output.done(json!({ "name": name, "broken": true }), &format!("{name} is not locked"))
        }
    }
}

/// Servers do not tell. Whoever asks for the lock at this very moment is told that it is taken.
async fn is_locked(session: &Session, name: &str) -> Result<bool> {
    match session.cluster.open(name).await.map_err(crate::failure::Failure::from) {
        Ok(vdi) => {
            vdi.close().await?;
            Ok(false)
        }
        Err(failure) if failure.kind == Kind::Locked => Ok(true),
        Err(failure) => Err(failure),
    }
}
