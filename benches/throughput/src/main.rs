//! Measures memring's throughput beside a raw ceiling and other clients.

mod cells;
mod contenders;
mod data;
mod goals;
mod key_choice;
mod meter;
mod options;
mod plot;
mod processes;
mod raw;
mod relay;
mod report;
mod rounds;
mod servers;
mod testbed;
mod workload;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use crate::cells::{Part, Route};
use crate::contenders::Kind;
use crate::data::Dataset;
use crate::key_choice::KeyChoice;
use crate::options::{Command, HELP, Options, Serve};
use crate::servers::Servers;
use crate::testbed::Testbed;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let outcome = match run_child(&arguments) {
        Some(outcome) => outcome,
        None => match Command::parse(arguments) {
            Ok(Command::Help) => {
                println!("{HELP}");
                Ok(())
            }
            Ok(Command::Measure(options)) => measure(&options),
            Ok(Command::Serve(serve)) => self::serve(&serve),
            Ok(Command::Count(count)) => rounds::count(&count),
            Err(error) => {
                eprintln!("{error} (see --help)");
                return ExitCode::from(2);
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this process in a child's role, if another process of this program started it with a hidden argument.
fn run_child(arguments: &[OsString]) -> Option<Outcome<()>> {
    let (role, rest) = arguments.split_first()?;
    Some(match role.to_str()? {
        relay::ARGUMENT => parse_nodes(rest).and_then(|nodes| relay::run(&nodes)),
        processes::IDLE => parse_nodes(rest).and_then(|nodes| processes::run_idle(&nodes)),
        processes::MEMORY => {
            let (kind, rest) = rest.split_first()?;
            let kind = Kind::ALL.iter().copied().find(|known| Some(known.name()) == kind.to_str())?;
            parse_nodes(rest).and_then(|nodes| processes::run_memory(kind, &nodes))
        }
        _ => return None,
    })
}

fn parse_nodes(arguments: &[OsString]) -> Outcome<Vec<SocketAddr>> {
    arguments.iter().map(|node| Ok(node.to_string_lossy().parse()?)).collect()
}

fn serve(options: &Serve) -> Outcome<()> {
    let servers = Servers::start(&options.memcached)?;
    servers.fill(&Dataset::new(options.value_size, options.keys))?;
    println!("{}", servers.addrs().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(","));
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn measure(options: &Options) -> Outcome<()> {
    let testbed = Testbed::new(options)?;
    let (version, other) = testbed.versions()?;
    let mut servers = vec![format!("memcached {version}")];
    servers.extend(other.map(|version| format!("other server: memcached {version}")));
    let run = options.run.as_millis();
    println!("4 processes, {}; {} keys; {} rounds of {run} ms\n", servers.join("; "), options.keys, options.rounds);

    let rows = rounds::run(options, cells::cells(options), &testbed)?;
    if !rows.is_empty() {
        println!("Fractions of the ceiling:\n\n{}\n{}", report::ratios(&rows), report::details(&rows));
    }
    let mut footprints = Vec::new();
    if options.wants(Part::Memory) {
        testbed.fill(&Dataset::new(100, KeyChoice::default()))?;
        // The memory of a ceiling would be that of its pre-encoded requests.
        let kinds = options.contenders.iter().copied().filter(|kind| !kind.is_raw());
        footprints = processes::memory(kinds, testbed.nodes(Route::Direct))?;
        println!("With 1,024 callers:\n\n{}", report::footprints(&footprints));
    }
    let mut idle = None;
    if options.wants(Part::Idle) {
        let servers = Servers::start_with_100_addresses(&options.memcached)?;
        let share = processes::idle(&servers.addrs())?;
        println!("Idle, with 100 nodes connected: {:.2} ms of CPU time per second\n", share * 1e3);
        idle = Some(share);
    }
    // The goals were set for the default keys.
    if options.keys == KeyChoice::default() {
        println!("Goals:\n\n{}", goals::table(&rows, &footprints));
    }
    if let Some(path) = &options.svg {
        plot::draw(&rows, Path::new(path))?;
    }
    if let Some(path) = &options.json {
        fs::write(path, format!("{:#}\n", report::json(&rows, &footprints, idle, &servers, options.keys)))?;
    }
    Ok(())
}
