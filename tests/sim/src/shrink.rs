//! The shortest schedule that fails in the same way.

use crate::check::Kind;
use crate::fault::Delays;
use crate::ops::{Action, Schedule};

/// Leaves out operations and faults, then makes what is left simpler, as long as `fails` says so.
pub fn shrink(schedule: &Schedule, fails: impl Fn(&Schedule) -> bool) -> Schedule {
    let mut best = schedule.clone();
    loop {
        let before = best.to_string().len();
        best = without_ops(best, &fails);
        best = without_faults(best, &fails);
        best = simpler(best, &fails);
        if best.to_string().len() >= before {
            return best;
        }
    }
}

/// Whether a schedule shows that kind of violation.
pub fn shows(schedule: &Schedule, kind: Kind) -> bool {
    let report = crate::play::play(schedule, false);
    report.violations.iter().any(|violation| violation.kind == kind)
}

/// Delta debugging over the operations.
fn without_ops(mut best: Schedule, fails: &impl Fn(&Schedule) -> bool) -> Schedule {
    let mut size = best.ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < best.ops.len() {
            let gone: Vec<u32> = best.ops.iter().skip(at).take(size).map(|op| op.id).collect();
            let candidate = best.filtered(|id| !gone.contains(&id), |_| true);
            if !candidate.ops.is_empty() && fails(&candidate) {
                best = candidate;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    best
}

fn without_faults(mut best: Schedule, fails: &impl Fn(&Schedule) -> bool) -> Schedule {
    let mut at = 0;
    while at < best.faults.len() {
        let candidate = best.filtered(|_| true, |fault| fault != at);
        if fails(&candidate) {
            best = candidate;
        } else {
            at += 1;
        }
    }
    best
}

fn simpler(mut best: Schedule, fails: &impl Fn(&Schedule) -> bool) -> Schedule {
    let about_nodes = best.faults.iter().any(|fault| fault.request().is_none());
    let mut take = |change: &dyn Fn(&mut Schedule)| {
        let mut candidate = best.clone();
        change(&mut candidate);
        if candidate != best && fails(&candidate) {
            best = candidate;
        }
    };
    take(&|s| s.config.delays = Delays::NONE);
    take(&|s| s.config.delays = Delays::default());
    take(&|s| s.config.hazards = false);
    take(&|s| s.config.lock = false);
    take(&|s| s.config.recycle = false);
    // What hangs or dies means something beside others that do not.
    if !about_nodes {
        take(&|s| (s.config.nodes, s.config.copies) = (1, 1));
        take(&|s| s.config.copies = 1);
    }
    take(&|s| {
        let clients = s.ops.iter().map(|op| op.client + 1).max();
        s.config.clients = clients.unwrap_or(1);
    });
    let count = best.ops.len();
    for at in 0..count {
        let mut take = |change: &dyn Fn(&mut Schedule)| {
            let mut candidate = best.clone();
            change(&mut candidate);
            if candidate != best && fails(&candidate) {
                best = candidate;
            }
        };
        take(&|s| s.ops[at].deadline = 0);
        take(&|s| s.ops[at].drop_at = None);
        take(&|s| {
            if let Action::Write { len, .. } | Action::Read { len, .. } = &mut s.ops[at].action {
                *len = 1;
            }
        });
    }
    best
}
