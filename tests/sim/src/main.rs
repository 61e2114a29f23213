//! sim run --seconds N [--jobs J] [--from SEED] [--count N] [--shape NAME,...] [--all] [--kind KIND]
//!         [--as-it-is]
//! sim replay 'LINE' [--trace]
//! sim show --shape NAME --from SEED
//!
//! Plays schedules until time is up or one shows a violation: then the shortest that does, as the
//! one line that `replay` takes, and what happened in it. With --all it goes on, and counts; with
//! --as-it-is nothing is shortened.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sim::check::{Kind, Violation};
use sim::ops::Schedule;
use sim::play::{Report, keep_panics, play};
use sim::shapes::{SHAPES, Shape};
use sim::shrink::{shows, shrink};

struct Args {
    words: Vec<String>,
}

impl Args {
    fn has(&self, name: &str) -> bool {
        self.words.iter().any(|word| word == name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == name)?;
        self.words.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.value(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    }
}

/// Memory that a schedule has used is for the next one: asking the kernel for it each time is a
/// tenth of all.
#[allow(unsafe_code)]
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: these are two numbers of the allocator's.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

fn main() -> ExitCode {
    keep_memory();
    // A panic of the library is a violation, and told as one.
    keep_panics();
    let args = Args { words: std::env::args().skip(1).collect() };
    match args.words.first().map(String::as_str) {
        Some("run") => run(&args),
        Some("replay") => match args.words.get(1).map(|line| line.parse::<Schedule>()) {
            Some(Ok(schedule)) => replay(&schedule, args.has("--trace")),
            Some(Err(error)) => usage(&error),
            None => usage("replay what?"),
        },
        Some("show") => match args.value("--shape").and_then(Shape::named) {
            Some(shape) => {
                println!("{}", shape.schedule(args.number("--from", 1)));
                ExitCode::SUCCESS
            }
            None => usage("which shape?"),
        },
        _ => usage("run, replay or show"),
    }
}

fn usage(error: &str) -> ExitCode {
    eprintln!("sim: {error}");
    ExitCode::from(2)
}

fn replay(schedule: &Schedule, trace: bool) -> ExitCode {
    let report = play(schedule, trace);
    report.trace.iter().for_each(|line| println!("{line}"));
    tell(&report);
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(report: &Report) {
    for violation in &report.violations {
        println!("{violation}");
    }
    let beyond = if report.beyond { ", beyond what is to be borne" } else { "" };
    println!(
        "{} violations, {} events, {:.3} s, hash {:016x}{beyond}",
        report.violations.len(),
        report.events,
        report.time.as_secs_f64(),
        report.hash
    );
}

/// What a run has found so far.
#[derive(Default)]
struct Found {
    /// How many schedules of a shape showed what, and the first of them.
    kinds: BTreeMap<(&'static str, Kind), (u64, u64)>,
    first: Option<(&'static str, u64, Schedule)>,
}

fn run(args: &Args) -> ExitCode {
    let shapes: Vec<&'static Shape> = match args.value("--shape") {
        None => SHAPES.iter().collect(),
        Some(names) => match names.split(',').map(Shape::named).collect() {
            Some(shapes) => shapes,
            None => return usage("there is no such shape"),
        },
    };
    let (jobs, all) = (args.number("--jobs", 1), args.has("--all"));
    let seconds = Duration::from_secs(args.number("--seconds", 30));
    let last = args.number("--count", u64::MAX);
    let (next, stop) = (AtomicU64::new(args.number("--from", 1)), AtomicBool::new(false));
    let first = next.load(Ordering::Relaxed);
    let (found, start) = (Mutex::new(Found::default()), Instant::now());
    let (events, beyond) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && start.elapsed() < seconds {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number - first >= last {
                        break;
                    }
                    let shape = shapes[number as usize % shapes.len()];
                    let schedule = shape.schedule(number);
                    let report = play(&schedule, false);
                    events.fetch_add(report.events, Ordering::Relaxed);
                    beyond.fetch_add(report.beyond.into(), Ordering::Relaxed);
                    if report.violations.is_empty() {
                        continue;
                    }
                    let mut found = found.lock().expect("no panic");
                    for violation in &report.violations {
                        let entry = found.kinds.entry((shape.name, violation.kind));
                        entry.or_insert((0, number)).0 += 1;
                    }
                    if found.first.is_none() {
                        found.first = Some((shape.name, number, schedule));
                    }
                    if !all {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let done = next.load(Ordering::Relaxed).min(first.saturating_add(last)) - first;
    let time = start.elapsed().as_secs_f64();
    println!(
        "{done} schedules in {time:.1} s, {:.0} a second, {} events, {} beyond",
        done as f64 / time,
        events.load(Ordering::Relaxed),
        beyond.load(Ordering::Relaxed),
    );
    let found = found.into_inner().expect("no panic");
    for ((shape, kind), (count, seed)) in &found.kinds {
        println!("{shape}: {kind} {count} times, first with seed {seed}");
    }
    let Some((shape, seed, schedule)) = found.first else { return ExitCode::SUCCESS };
    if !all || args.has("--shrink") {
        let violations = play(&schedule, false).violations;
        let named = |violation: &&Violation| {
            args.value("--kind").is_none_or(|kind| kind == violation.kind.to_string())
        };
        let kind = violations.iter().find(named).map(|violation| violation.kind);
        println!("shape {shape}, seed {seed}:\n{schedule}");
        if let Some(kind) = kind.filter(|_| !args.has("--as-it-is")) {
            let short = shrink(&schedule, |schedule| shows(schedule, kind));
            let report = play(&short, true);
            report.trace.iter().for_each(|line| println!("  {line}"));
            tell(&report);
            println!("{short}");
        }
    }
    ExitCode::FAILURE
}
