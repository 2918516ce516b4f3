//! Compares placements: how evenly they distribute keys, how many keys move when nodes change, and their memory.
//!
//! Prints the tables of docs/rings.md and draws its chart. `cargo run --release --example balance` takes a minute or
//! two and writes `docs/images/balance.svg`. `--help` lists the options.

mod chart;
mod measure;

use std::error::Error;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::measure::{Load, Moved};

const USAGE: &str = "\
Compares placements: prints tables of load, moved keys and memory, and draws a chart.

Usage: balance [--quick] [--out FILE.svg]

  --out FILE.svg  the file of the chart; docs/images/balance.svg unless given
  --quick         measures a few small rings only, to check that the example works
";

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The names of the placements to compare.
///
/// Each of the others distributes keys like one of these: php-memcached and pylibmc like libmemcached, spymemcached and
/// twemproxy like `libmemcached:ketama_weighted`, and pecl-memcache's `standard`, mcrouter's `Crc32` and all `modula`
/// like gomemcache.
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
    // Makes nodes of weight 1 count as 1.0.
    "mcrouter:ch3:weighted:1",
    "mcrouter:rendezvous",
    "envoy",
    "envoy:maglev",
];

/// The modulo placement. Its load is even and needs no measurement, but it moves many keys.
const MODULO: &str = "gomemcache";

/// The options of the command line.
struct Options {
    out: String,
    placements: Vec<&'static str>,
    sizes: Vec<usize>,
    sets: usize,
}

/// One row of the chart: the loads of a placement with 10 and 100 nodes, and the keys it moves with 10 nodes.
struct ChartRow {
    name: &'static str,
    loads: Vec<Load>,
    moved: Moved,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = parse_options()? else {
        print!("{USAGE}");
        return Ok(());
    };
    let loads = measure_loads(&options)?;
    let moved = measure_moves(&options)?;
    measure_memory(&options)?;

    // The chart shows 10 and 100 nodes, or 3 and 10 with `--quick`.
    let shown_sizes = if options.sizes.len() > 2 { 1..3 } else { 0..2 };
    let rows: Vec<_> = with_modulo(&options)
        .zip(loads.into_iter().zip(moved))
        .map(|(name, (loads, moved))| ChartRow { name, loads: loads[shown_sizes.clone()].to_vec(), moved })
        .collect();
    chart::draw(&options.out, &rows, options.sizes[shown_sizes.start], options.sizes[shown_sizes.end - 1])?;
    println!("\nwrote {}", options.out);
    Ok(())
}

fn parse_options() -> Result<Option<Options>, Box<dyn Error>> {
    use lexopt::prelude::*;
    let out = "docs/images/balance.svg".to_owned();
    let mut options = Options { out, placements: PLACEMENTS.to_vec(), sizes: vec![3, 10, 100, 1000], sets: 200 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("out") => options.out = parser.value()?.string()?,
            Long("quick") => {
                // Two placements with points, and one whose keys are counted.
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

fn print_head(title: &str, columns: &[usize]) {
    let titles: Vec<_> = columns.iter().map(|n| format!("{n} nodes")).collect();
    println!("\n| {title} | {} |\n|---|{}", titles.join(" | "), "---|".repeat(columns.len()));
}

/// Returns the number of sets of nodes. Large rings get fewer sets, because they take long.
fn set_count(options: &Options, n: usize) -> usize {
    if n > 100 { options.sets / 5 } else { options.sets }
}

fn measure_loads(options: &Options) -> Result<Vec<Vec<Load>>, Box<dyn Error>> {
    print_head("fullest node / mean: median, p95, worst", &options.sizes);
    let mut rows = Vec::new();
    for &name in &options.placements {
        let mut loads = Vec::new();
        let mut cells = Vec::new();
        for &n in &options.sizes {
            // pymemcache hashes every key for every node, which takes minutes for 1000 nodes.
            if name == "pymemcache" && n > 100 {
                cells.push(String::new());
                continue;
            }
            let load = measure::load(name, n, set_count(options, n))?;
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
    let cells: Vec<_> = options.sizes.iter().map(|&n| format!("({:.3})", measure::random_load(n))).collect();
    println!("| random choice | {} |", cells.join(" | "));
    println!(
        "\n200 sets of pod names, 40 at 1000 nodes. In brackets: counted with {} keys a node.",
        measure::KEYS_PER_NODE
    );
    // A remainder distributes the values of a hash evenly.
    rows.push(vec![Load { median: 1.0, p95: 1.0, worst: 1.0 }; options.sizes.len()]);
    Ok(rows)
}

fn measure_moves(options: &Options) -> Result<Vec<Moved>, Box<dyn Error>> {
    const NODES: usize = 10;
    println!("\n| keys that move, of {NODES} nodes | one is added | the first is removed | the last is removed |");
    println!("|---|---|---|---|");
    let mut rows = Vec::new();
    for name in with_modulo(options) {
        let moved = measure::moved(name, NODES, options.sets.min(20))?;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let cells = [moved.added, moved.first_removed, moved.last_removed].map(percent);
        println!("| {name} | {} |", cells.join(" | "));
        rows.push(moved);
    }
    println!(
        "\nMedians over 20 sets. The minimum is {:.1} % for an added node and {:.1} % for a removed one.",
        100.0 / (NODES + 1) as f64,
        100.0 / NODES as f64
    );
    Ok(rows)
}

fn measure_memory(options: &Options) -> Result<(), Box<dyn Error>> {
    print_head("bytes of a ring", &options.sizes);
    for name in with_modulo(options) {
        let bytes = |&n: &usize| measure::memory(name, n).map(grouped_digits);
        let cells: Vec<_> = options.sizes.iter().map(bytes).collect::<Result<_, _>>()?;
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// Formats a number in groups of three digits.
fn grouped_digits(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
