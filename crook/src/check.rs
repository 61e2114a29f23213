//! crook check: whether everything is there that a VDI or snapshot has.

use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use sheepdog::{Extent, ExtentKind, Info};

use crate::cli::Check;
use crate::failure::{Failure, Kind, Result};
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::session::{Readable, Session};

/// Objects that are read at once.
const REQUESTS: usize = 16;
const SECTOR: u64 = 512;

/// What is wrong with one object, or with the whole.
struct Finding {
    /// Where it begins; None of the whole.
    offset: Option<u64>,
    what: String,
}

struct Report {
    findings: Vec<Finding>,
    objects: u64,
    /// Bytes that were read.
    read: u64,
}

pub fn run(session: &Session, output: &Output, args: Check) -> Result<()> {
    let work = check(session, output, &args);
    let report = session.run(&format!("checking {}", args.vdi), "nothing was changed", work)?;
    let findings: Vec<Value> = report.findings.iter().map(Finding::value).collect();
    let value = json!({
        "name": args.vdi.to_string(),
        "objects": report.objects,
        "read": report.read,
        "errors": findings,
    });
    let count = report.findings.len();
    output.result(&value, || {
        let mut text: String = report.findings.iter().map(Finding::line).collect();
        let (objects, read) = (report.objects, output::size(report.read));
        text += &format!("{}: {objects} objects, {read} read, {count} errors\n", args.vdi);
        text
    })?;
    match count {
        0 => Ok(()),
        _ => Err(Failure::new(Kind::Damaged, format!("{} has {count} errors", args.vdi))),
    }
}

impl Finding {
    fn whole(what: impl Into<String>) -> Finding {
        Finding { offset: None, what: what.into() }
    }

    fn value(&self) -> Value {
        json!({ "offset": self.offset, "error": self.what })
    }

    fn line(&self) -> String {
        match self.offset {
            Some(offset) => format!("at {offset}: {}\n", self.what),
            None => format!("{}\n", self.what),
        }
    }
}

async fn check(session: &Session, output: &Output, args: &Check) -> Result<Report> {
    let vdi = session.open_readable(&args.vdi).await?;
    let info = vdi.info().await?;
    let extents = vdi.block_status(0, vdi.size()).await?;
    let mut findings = look_at(&info, &extents);
    let objects: Vec<(u64, u64)> = objects(&extents, info.object_size, vdi.size()).collect();
    let read_of = |len: u64| if args.quick { len.min(SECTOR) } else { len };
    let total = objects.iter().map(|(_, len)| read_of(*len)).sum();
    let mut progress = Progress::new(output, "checking", Some(total));
    let count = objects.len() as u64;
    let mut reads = stream::iter(objects)
        .map(|(offset, len)| read(&vdi, offset, read_of(len)))
        .buffer_unordered(REQUESTS);
    let mut read = 0;
    while let Some((len, finding)) = reads.next().await {
        progress.add(len);
        match finding? {
            None => read += len,
            Some(finding) => findings.push(finding),
        }
    }
    findings.sort_by_key(|finding| finding.offset);
    Ok(Report { findings, objects: count, read })
}

/// Reads one object: what is wrong with it, or with the cluster, after which no other need be asked.
async fn read(vdi: &Readable, offset: u64, len: u64) -> (u64, Result<Option<Finding>>) {
    let (result, _) = vdi.read_at(vec![0; len as usize], offset).await;
    let finding = match result {
        Ok(()) => Ok(None),
        Err(error) => match Failure::from(error) {
            failure if failure.kind == Kind::Failed => {
                Ok(Some(Finding { offset: Some(offset), what: failure.message }))
            }
            failure => Err(failure),
        },
    };
    (len, finding)
}

/// The objects that there should be: the offset and length of each.
fn objects(extents: &[Extent], object_size: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let there = extents.iter().filter(|extent| extent.kind != ExtentKind::Hole);
    there.flat_map(move |extent| {
        let indexes =
            extent.offset / object_size..(extent.offset + extent.len).div_ceil(object_size);
        indexes.map(move |index| {
            let offset = index * object_size;
            (offset, object_size.min(size - offset))
        })
    })
}

/// Whether what the header says goes together.
fn look_at(info: &Info, extents: &[Extent]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expect = |is_so: bool, what: String| {
        if !is_so {
            findings.push(Finding::whole(what));
        }
    };
    let object_size = info.object_size;
    let is_sound = object_size.is_power_of_two() && (1 << 20..=1 << 31).contains(&object_size);
    expect(is_sound, format!("objects of {object_size} bytes"));
    let most = if info.hypervolume { 1 << 32 } else { 1 << 20 };
    expect(info.size > 0, "it has no size".into());
    expect(
        info.size.div_ceil(object_size) <= most,
        format!("a size of {} bytes, more than its index has room for", info.size),
    );
    expect((1..=31).contains(&info.copies), format!("{} copies", info.copies));
    if let Some((data, parity)) = info.erasure_code {
        expect(
            [2, 4, 8, 16].contains(&data) && data + parity == info.copies,
            format!("an erasure code of {data}:{parity}, and {} strips", info.copies),
        );
    }
    if let Some(taken) = info.snapshot_taken {
        expect(taken >= info.created, "a snapshot that was taken before its VDI was made".into());
    }
    let there = objects(extents, object_size, info.size).count() as u64 * object_size;
    expect(
        there == info.allocated,
        format!(
            "a map of {there} bytes, and {} allocated: it changes, or is damaged",
            info.allocated
        ),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_is_looked_at_once_and_the_last_one_ends_with_the_vdi() {
        let extent = |offset, len, kind| Extent { offset, len, kind };
        let extents = [
            extent(0, 8, ExtentKind::Allocated),
            extent(8, 4, ExtentKind::Shared),
            extent(12, 8, ExtentKind::Hole),
            extent(20, 5, ExtentKind::Allocated),
        ];
        let found: Vec<_> = objects(&extents, 4, 25).collect();
        assert_eq!(found, [(0, 4), (4, 4), (8, 4), (20, 4), (24, 1)]);
    }
}
