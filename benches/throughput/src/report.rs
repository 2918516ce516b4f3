//! The results, as Markdown tables and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cells;
use crate::key_choice::KeyChoice;
use crate::meter::Sample;
use crate::processes::Footprint;
use crate::rounds::Row;

/// Returns a table with a row per cell: the ceiling's throughput, and each contender's fraction of it.
pub(crate) fn ratios(rows: &[Row]) -> String {
    let mut names: Vec<String> = Vec::new();
    for entrant in rows.iter().flat_map(|row| row.cell.entrants.iter().skip(1)) {
        let name = entrant.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut table =
        format!("| cell | ceiling, k op/s | {} |\n|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for row in rows {
        let base = row.median(0, |own, _| own.per_second()) / 1e3;
        let _ = write!(table, "| {} | {base:.0}, {} |", row.cell, row.cell.entrants[0]);
        for name in &names {
            let found = row.cell.entrants.iter().skip(1).position(|entrant| entrant.to_string() == *name);
            let _ = match found {
                Some(at) => write!(table, " {:.2} |", row.ratio(at + 1)),
                None => write!(table, " |"),
            };
        }
        table.push('\n');
    }
    table
}

/// Returns a table with a row per cell and contender.
pub(crate) fn details(rows: &[Row]) -> String {
    let mut table = String::from(
        "| cell | contender | fraction | k op/s | CPU us/op | p50 us | p99 us |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        for (at, entrant) in row.cell.entrants.iter().enumerate() {
            let rate = row.median(at, |own, _| own.per_second()) / 1e3;
            let cpu = row.median(at, |own, _| own.cpu_micros());
            let percentile = |which: usize| match row.median(at, |own, _| micros(own, which)) {
                micros if micros.is_nan() => String::new(),
                micros => format!("{micros:.0}"),
            };
            let (p50, p99) = (percentile(0), percentile(1));
            let (cell, ratio) = (&row.cell, row.ratio(at));
            let _ = writeln!(table, "| {cell} | {entrant} | {ratio:.2} | {rate:.1} | {cpu:.2} | {p50} | {p99} |");
        }
    }
    table
}

pub(crate) fn footprints(footprints: &[Footprint]) -> String {
    let mut table = String::from("| contender | added memory, MiB |\n|---|---|\n");
    for Footprint { kind, added, .. } in footprints {
        let _ = writeln!(table, "| {} | {:.1} |", kind.name(), *added as f64 / f64::from(1 << 20));
    }
    table
}

fn micros(sample: &Sample, which: usize) -> f64 {
    sample.latency.map_or(f64::NAN, |latency| latency[which].as_secs_f64() * 1e6)
}

/// Returns all samples.
pub(crate) fn json(
    rows: &[Row],
    footprints: &[Footprint],
    idle: Option<f64>,
    servers: &[String],
    keys: KeyChoice,
) -> Value {
    let sample = |sample: &Sample| {
        json!({
            "operations": sample.ops,
            "seconds": sample.duration.as_secs_f64(),
            "cpu_seconds": sample.cpu.as_secs_f64(),
            "p50_us": sample.latency.map(|latency| latency[0].as_secs_f64() * 1e6),
            "p99_us": sample.latency.map(|latency| latency[1].as_secs_f64() * 1e6),
        })
    };
    let row = |row: &Row| {
        let entrants = row.cell.entrants.iter().zip(&row.samples);
        json!({
            "cell": row.cell.to_string(),
            "operation": row.cell.op.to_string(),
            "value_size": cells::format_size(row.cell.size),
            "window": row.cell.window,
            "runtime": row.cell.threads.to_string(),
            "contenders": entrants.enumerate().map(|(at, (entrant, samples))| json!({
                "name": entrant.to_string(),
                "of_ceiling": row.ratio(at),
                "rounds": samples.iter().map(sample).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    };
    json!({
        "servers": servers,
        "keys": keys.to_string(),
        "cells": rows.iter().map(row).collect::<Vec<_>>(),
        "memory_added": footprints.iter().map(|footprint| json!({
            "name": footprint.kind.name(), "window": footprint.window, "bytes": footprint.added,
        })).collect::<Vec<_>>(),
        "idle_cpu_of_100_nodes": idle,
    })
}
