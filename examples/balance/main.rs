//! How evenly each placement shares keys out, how many keys move when nodes come and go, and what a ring holds in
//! memory: prints the tables of docs/rings.md and draws its picture.
//!
//! `cargo run --release --example balance` (a minute or two) writes `docs/images/balance.svg`; `--out FILE` another one.
//! `--quick` looks at a few small rings, to see that it works.

mod measure;
mod picture;

use std::error::Error;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::measure::{Load, Moved};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Placements by name. Those left out share keys out as one of these: php-memcached and pylibmc as libmemcached,
/// spymemcached and twemproxy as `libmemcached:ketama_weighted`, pecl-memcache's `standard`, mcrouter's `Crc32`
/// and all `modula` as gomemcache.
const PLACEMENTS: [&str; 16] = [
    "native",
    "libmemcached:ketama_weighted",
    "libmemcached:ketama",
    "twemproxy:ketama",
    "dalli",
    "nginx",
    "folsom",
    "uhashring",
    "pecl:consistent",
    "pymemcache",
    "dskit",
    "mcrouter:ch3",
    // Nodes of weight 1, which this makes 1.0.
    "mcrouter:ch3:weighted:1",
    "mcrouter:rendezvous",
    "envoy",
    "envoy:maglev",
];

/// Modulo as gomemcache does it; it has no load to measure, and much to move.
const MODULO: &str = "gomemcache";

/// What is asked for on the command line.
struct Options {
    out: String,
    placements: Vec<&'static str>,
    sizes: Vec<usize>,
    sets: usize,
}

/// Of one placement, what the picture shows: how it loads 10 nodes and 100, and what it moves among ten.
struct Shown {
    name: &'static str,
    loads: Vec<Load>,
    moved: Moved,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = options()? else {
        println!("balance [--quick] [--out FILE.svg]");
        return Ok(());
    };
    let loads = loads(&options)?;
    let moved = moves(&options)?;
    memory(&options)?;

    // The picture has 10 and 100 nodes, or what there is.
    let among = if options.sizes.len() > 2 { 1..3 } else { 0..2 };
    let shown: Vec<_> = with_modulo(&options)
        .zip(loads.into_iter().zip(moved))
        .map(|(name, (loads, moved))| Shown { name, loads: loads[among.clone()].to_vec(), moved })
        .collect();
    picture::draw(&options.out, &shown, options.sizes[among.start], options.sizes[among.end - 1])?;
    println!("\n{} is drawn", options.out);
    Ok(())
}

fn options() -> Result<Option<Options>, Box<dyn Error>> {
    use lexopt::prelude::*;
    let out = "docs/images/balance.svg".to_owned();
    let mut options = Options { out, placements: PLACEMENTS.to_vec(), sizes: vec![3, 10, 100, 1000], sets: 200 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("out") => options.out = parser.value()?.string()?,
            Long("quick") => {
                // A circle, and what is counted.
                options.placements.retain(|name| ["native", "dalli", "dskit"].contains(name));
                (options.sizes, options.sets) = (vec![3, 10], 1);
            }
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn with_modulo(options: &Options) -> impl Iterator<Item = &'static str> {
    options.placements.iter().copied().chain([MODULO])
}

fn head(title: &str, columns: &[usize]) {
    let titles: Vec<_> = columns.iter().map(|n| format!("{n} nodes")).collect();
    println!("\n| {title} | {} |\n|---|{}", titles.join(" | "), "---|".repeat(columns.len()));
}

/// How many sets of nodes: fewer of many nodes, for those take long.
fn sets(options: &Options, n: usize) -> usize {
    if n > 100 { options.sets / 5 } else { options.sets }
}

fn loads(options: &Options) -> Result<Vec<Vec<Load>>, Box<dyn Error>> {
    head("fullest node / mean: median, p95, worst", &options.sizes);
    let mut rows = Vec::new();
    for &name in &options.placements {
        let mut loads = Vec::new();
        let mut cells = Vec::new();
        for &n in &options.sizes {
            // It asks every node about every key, which for a thousand takes minutes.
            if name == "pymemcache" && n > 100 {
                cells.push(String::new());
                continue;
            }
            let load = measure::load(name, n, sets(options, n))?;
            cells.push(if measure::has_points(name) {
                format!("{:.2} {:.2} {:.2}", load.median, load.p95, load.worst)
            } else {
                format!("({:.3})", load.median)
            });
            loads.push(load);
        }
        println!("| {name} | {} |", cells.join(" | "));
        rows.push(loads);
    }
    let chance: Vec<_> = options.sizes.iter().map(|&n| measure::chance(n)).collect();
    let cells: Vec<_> = chance.iter().map(|load| format!("({load:.3})")).collect();
    println!("| chance alone | {} |", cells.join(" | "));
    println!(
        "\n200 sets of pod names, 40 at 1000 nodes. In brackets: counted by {} keys a node.",
        measure::KEYS_PER_NODE
    );
    // A remainder shares the numbers of a hash out evenly.
    rows.push(vec![Load { median: 1.0, p95: 1.0, worst: 1.0 }; options.sizes.len()]);
    Ok(rows)
}

fn moves(options: &Options) -> Result<Vec<Moved>, Box<dyn Error>> {
    const NODES: usize = 10;
    println!(
        "\n| keys that move, of {NODES} nodes | one is added | the first leaves | the last leaves |\n|---|---|---|---|"
    );
    let mut rows = Vec::new();
    for name in with_modulo(options) {
        let moved = measure::moved(name, NODES, options.sets.min(20))?;
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        let cells = [moved.grown, moved.first_gone, moved.last_gone].map(percent);
        println!("| {name} | {} |", cells.join(" | "));
        rows.push(moved);
    }
    println!(
        "\nMedians over 20 sets. The least there is: {:.1} % and {:.1} %.",
        100.0 / (NODES + 1) as f64,
        100.0 / NODES as f64
    );
    Ok(rows)
}

fn memory(options: &Options) -> Result<(), Box<dyn Error>> {
    head("bytes of a ring", &options.sizes);
    for name in with_modulo(options) {
        let bytes = |&n: &usize| measure::memory(name, n).map(grouped);
        let cells: Vec<_> = options.sizes.iter().map(bytes).collect::<Result<_, _>>()?;
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// A number in groups of three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
