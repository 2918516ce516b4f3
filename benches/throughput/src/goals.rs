//! memring's performance goals, and whether a run reached them.

use std::fmt::Write;

use crate::cells::{Cell, Part, Threads};
use crate::contenders::Kind;
use crate::processes::Footprint;
use crate::rounds::Row;
use crate::workload::Op;

/// A minimum for memring's fraction of the ceiling in one cell.
struct Goal {
    part: Part,
    op: Op,
    size: usize,
    window: usize,
    threads: Threads,
    goal: f64,
    aim: Option<f64>,
}

const fn goal(part: Part, op: Op, size: usize, window: usize, threads: Threads, goal: f64) -> Goal {
    Goal { part, op, size, window, threads, goal, aim: None }
}

const fn get(window: usize, threads: Threads, goal: f64, aim: Option<f64>) -> Goal {
    Goal { part: Part::Get, op: Op::Get, size: 100, window, threads, goal, aim }
}

const GOALS: [Goal; 17] = [
    get(16, Threads::One, 0.60, Some(0.75)),
    get(64, Threads::One, 0.45, Some(0.75)),
    get(256, Threads::One, 0.85, Some(1.1)),
    get(1024, Threads::One, 1.05, Some(1.3)),
    get(16, Threads::Two, 0.60, None),
    get(64, Threads::Two, 0.60, None),
    get(256, Threads::Two, 0.90, None),
    get(1024, Threads::Two, 1.15, None),
    goal(Part::Set, Op::Set, 100, 64, Threads::One, 0.50),
    goal(Part::Set, Op::Set, 100, 64, Threads::Two, 0.50),
    goal(Part::Mixed, Op::Mixed, 100, 64, Threads::One, 0.50),
    goal(Part::Mixed, Op::Mixed, 100, 64, Threads::Two, 0.50),
    goal(Part::Sizes, Op::Get, 16 << 10, 64, Threads::One, 0.70),
    goal(Part::GetMany, Op::GetMany, 100, 16, Threads::One, 1.05),
    goal(Part::Relay, Op::Get, 100, 1024, Threads::One, 0.80),
    goal(Part::Against, Op::Get, 100, 64, Threads::One, 0.90),
    goal(Part::Against, Op::Get, 100, 1024, Threads::One, 0.90),
];

/// The limit on what memring adds to the ceiling's median latency at window 1, in microseconds.
const MAX_ADDED_MICROS: f64 = 2.0;

/// The limit on the memory that memring adds with 1,024 callers, in MiB.
const MAX_ADDED_MIB: f64 = 4.0;

impl Goal {
    fn applies_to(&self, cell: &Cell) -> bool {
        (self.part, self.op, self.size, self.window, self.threads)
            == (cell.part, cell.op, cell.size, cell.window, cell.threads)
    }
}

/// Returns a table of the goals that were measured.
pub(crate) fn table(rows: &[Row], footprints: &[Footprint]) -> String {
    let mut table = String::from("| goal | ceiling | required | aim | measured | |\n|---|---|---|---|---|---|\n");
    let mut add = |what: String, base: String, goal: String, aim: String, measured: String, is_reached: bool| {
        let result = if is_reached { "reached" } else { "MISSED" };
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {what} | {base} | {goal} | {aim} | {measured} | {result} |");
    };
    for row in rows {
        // The last one, because the part `against` compares memring with itself.
        let Some(own) = row.cell.entrants.iter().rposition(|entrant| entrant.kind == Kind::Memring) else { continue };
        let base = row.cell.entrants[0].to_string();
        for goal in GOALS.iter().filter(|goal| goal.applies_to(&row.cell)) {
            let ratio = row.ratio(own);
            let aim = goal.aim.map_or(String::new(), |aim| format!("{aim:.2}"));
            let (at_least, measured) = (format!("{:.2}", goal.goal), format!("{ratio:.2}"));
            add(row.cell.to_string(), base.clone(), at_least, aim, measured, ratio >= goal.goal);
        }
        if (row.cell.part, row.cell.window, row.cell.threads) == (Part::Get, 1, Threads::One) {
            let added = row.median(own, |own, base| match (own.latency, base.latency) {
                (Some([own, _]), Some([base, _])) => (own.as_secs_f64() - base.as_secs_f64()) * 1e6,
                _ => f64::NAN,
            });
            let what = format!("{}: p50 added", row.cell);
            let (at_most, measured) = (format!("at most {MAX_ADDED_MICROS} us"), format!("{added:.1} us"));
            add(what, base, at_most, String::new(), measured, added <= MAX_ADDED_MICROS);
        }
    }
    for footprint in footprints.iter().filter(|footprint| footprint.kind == Kind::Memring) {
        let mib = footprint.added as f64 / f64::from(1 << 20);
        let what = format!("memory added at window {}", footprint.window);
        let at_most = format!("at most {MAX_ADDED_MIB} MiB");
        add(what, String::new(), at_most, String::new(), format!("{mib:.1} MiB"), mib <= MAX_ADDED_MIB);
    }
    table
}
