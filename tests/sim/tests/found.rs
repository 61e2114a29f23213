//! Each shape of fault that is known is found, by the schedules in seeds/.
//!
//! A shape that the library is mended of goes from MUST_FIND to MUST_NOT_FIND: then the same
//! schedules must show nothing.

use sim::check::Kind;
use sim::ops::Schedule;
use sim::play::{Report, play};
use sim::shapes::Shape;

macro_rules! seeds {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("seeds/", $name, ".txt")))),*]
    };
}

/// Shapes that the library has.
const MUST_FIND: &[(&str, &str)] = &[];

/// Shapes that it is mended of.
const MUST_NOT_FIND: &[(&str, &str)] = seeds!(
    "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14",
    "s15"
);

/// The kinds of violation and the schedules of a file.
fn seeds(text: &str) -> impl Iterator<Item = (&str, Schedule)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (kind, schedule) = line.split_once('|').expect("a kind and a schedule");
        (kind.trim(), schedule.parse().unwrap_or_else(|error| panic!("{error}")))
    })
}

fn kinds(report: &Report) -> Vec<Kind> {
    report.violations.iter().map(|violation| violation.kind).collect()
}

#[test]
fn what_must_be_found_is_found() {
    let mut lost = Vec::new();
    for (name, text) in MUST_FIND {
        for (kind, schedule) in seeds(text) {
            let kinds = kinds(&play(&schedule, false));
            if !kinds.iter().any(|found| found.to_string() == kind) {
                lost.push(format!("{name}: {kind} is not found, but {kinds:?}: {schedule}"));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[test]
fn what_is_mended_stays_mended() {
    let mut found = Vec::new();
    for (name, text) in MUST_NOT_FIND {
        for (_, schedule) in seeds(text) {
            for violation in play(&schedule, false).violations {
                found.push(format!("{name}: {violation}: {schedule}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The library is sound there, so the checker is: it must find nothing.
#[test]
fn where_all_is_well_nothing_is_found() {
    let mut found = Vec::new();
    for name in ["solo", "kills", "turns"] {
        let shape = Shape::named(name).expect("a shape");
        for seed in 1..=150 {
            for violation in play(&shape.schedule(seed), false).violations {
                found.push(format!("{name}, seed {seed}: {violation}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_schedule_is_one_line_and_back() {
    for shape in sim::shapes::SHAPES {
        for seed in 1..=50 {
            let schedule = shape.schedule(seed);
            let line = schedule.to_string();
            assert_eq!(line.parse(), Ok(schedule), "{line}");
        }
    }
}

#[test]
fn the_same_line_gives_the_same_run() {
    for shape in sim::shapes::SHAPES {
        for seed in 1..=5 {
            let schedule = shape.schedule(seed);
            let (first, second) = (play(&schedule, false), play(&schedule, true));
            assert_eq!(first.hash, second.hash, "{}, seed {seed}", shape.name);
            assert_eq!(kinds(&first), kinds(&second));
        }
    }
}
