//! crook bench: what reads or writes take.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::json;
use sheepdog::aio::Vdi;

use crate::cli::Bench;
use crate::failure::{Failure, Result};
use crate::output::{self, Output};
use crate::session::Session;

struct Measured {
    time: Duration,
    /// Of each request, in the order of their ends.
    latencies: Vec<Duration>,
}

pub fn run(session: &Session, output: &Output, args: Bench) -> Result<()> {
    let own = args.name.is_none();
    let name = args.name.clone().unwrap_or_else(|| format!("crook-bench-{}", std::process::id()));
    let left = match own {
        true => format!("VDI \"{name}\" is there: crook rm {name}"),
        false if args.write => format!("VDI \"{name}\" holds what was written"),
        false => String::new(),
    };
    let measured = session.run("measuring", &left, measure(session, &name, own, &args))?;
    report(output, &args, measured)
}

async fn measure(session: &Session, name: &str, own: bool, args: &Bench) -> Result<Measured> {
    let cluster = &session.cluster;
    if own {
        cluster.create(name, args.size).await?;
    }
    let result = async {
        let vdi = match args.write || own {
            true => cluster.open(name).await?,
            false => cluster.open_read_only(name).await?,
        };
        if own && !args.write {
            fill(&vdi).await?;
        }
        let measured = go(&vdi, args).await?;
        if args.write {
            vdi.flush().await?;
        }
        vdi.close().await?;
        Ok(measured)
    }
    .await;
    if own {
        cluster.delete(name).await?;
    }
    result
}

/// So that there is something to read.
async fn fill(vdi: &Vdi) -> Result<()> {
    const PART: u64 = 4 << 20;
    let mut bytes = vec![0x5a; PART as usize];
    for offset in (0..vdi.size()).step_by(PART as usize) {
        bytes.truncate((vdi.size() - offset) as usize);
        let (result, back) = vdi.write_at(bytes, offset).await;
        result?;
        bytes = back;
    }
    Ok(())
}

async fn go(vdi: &Vdi, args: &Bench) -> Result<Measured> {
    let blocks = vdi.size() / args.block;
    if blocks == 0 {
        return Err(Failure::usage("the VDI is smaller than a request"));
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut next = 0;
    let mut offset = || {
        let block = match args.sequential {
            true => next,
            false => random.below(blocks),
        };
        next = (next + 1) % blocks;
        block * args.block
    };
    let request = async |bytes: Vec<u8>, offset: u64| {
        let begun = Instant::now();
        let (result, bytes) = match args.write {
            true => vdi.write_at(bytes, offset).await,
            false => vdi.read_at(bytes, offset).await,
        };
        (result, bytes, begun.elapsed())
    };
    let begun = Instant::now();
    let mut latencies = Vec::new();
    let mut under_way = FuturesUnordered::new();
    for _ in 0..args.depth {
        under_way.push(request(vec![0x5a; args.block as usize], offset()));
    }
    while let Some((result, bytes, latency)) = under_way.next().await {
        result?;
        latencies.push(latency);
        if begun.elapsed() < args.seconds {
            under_way.push(request(bytes, offset()));
        }
    }
    Ok(Measured { time: begun.elapsed(), latencies })
}

fn report(output: &Output, args: &Bench, measured: Measured) -> Result<()> {
    let Measured { time, mut latencies } = measured;
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |part: f64| latencies[((count - 1) as f64 * part) as usize];
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let seconds = time.as_secs_f64().max(1e-9);
    let bytes = count as u64 * args.block;
    let value = json!({
        "operation": if args.write { "write" } else { "read" },
        "order": if args.sequential { "sequential" } else { "random" },
        "block": args.block,
        "depth": args.depth,
        "seconds": seconds,
        "requests": count,
        "requests_per_second": count as f64 / seconds,
        "bytes_per_second": bytes as f64 / seconds,
        "latency_us": {
            "median": micros(at(0.5)), "p99": micros(at(0.99)), "max": micros(at(1.0)),
        },
    });
    output.result(&value, || {
        let what = if args.write { "writes" } else { "reads" };
        let order = if args.sequential { "sequential" } else { "random" };
        format!(
            "{order} {what} of {}, {} at once: {:.0} in a second, {}\n\
             latency: median {:.0} us, 99 % {:.0} us, most {:.0} us\n",
            output::size(args.block),
            args.depth,
            count as f64 / seconds,
            output::rate(bytes, time),
            micros(at(0.5)),
            micros(at(0.99)),
            micros(at(1.0)),
        )
    })
}

/// Xorshift: the same offsets each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
