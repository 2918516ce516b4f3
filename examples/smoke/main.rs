//! The operator's tool: tries a memcached service out through memring, and checks every value.
//!
//! `cargo run --release --example smoke` needs nothing but Rust: it starts a service of its own, takes it through what
//! happens to one, and says what it expected and what it saw. `--service` and `--nodes` try a real one; `--help` tells
//! the rest.

mod interrupt;
mod json;
mod load;
mod options;
mod report;
mod stage;
mod standstill;
mod step;
mod steps;
mod tally;
mod value;
mod watch;

use std::error::Error as StdError;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use memring::testing::Service;
use memring::{Client, DiscoveryError, ErrorKind, SrvDiscovery};

use crate::interrupt::interrupted;
use crate::load::Load;
use crate::options::{HELP, Options, Target};
use crate::report::{Report, Summary};
use crate::stage::Stage;
use crate::standstill::Standstill;
use crate::step::{Step, pod_name};

/// memcached's own limit, and the client's unless told otherwise.
const MIB: usize = 1024 * 1024;

/// How often a service of our own is gone through at the most, if the machine gives it no fair trial.
const ATTEMPTS: usize = 3;
/// A machine that stands still for so long makes operations late that nothing is wrong with.
const NO_FAIR_TRIAL: Duration = Duration::from_millis(400);

const INTERRUPTED: &str = "interrupted";

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return misused(&error.to_string()),
    };
    if let Some(filter) = &options.log
        && let Err(error) = log(filter)
    {
        return misused(&format!("--log {filter}: {error}"));
    }
    let report = Report::new(options.json);
    let standstill = Standstill::watch();
    let mut attempts = if options.target.is_own() { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        standstill.forget();
        let stage = match run(options.clone(), report.clone()).await {
            Ok(stage) => stage,
            Err(failure) => return failure.tell(),
        };
        let ok = stage.ok();
        let stood = standstill.longest();
        if !ok && attempts > 0 && stood >= NO_FAIR_TRIAL && stage.is_worth_another_attempt() {
            stage.report.again(stood);
            continue;
        }
        stage.report.summary(ok, &stage.summary);
        return if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
}

/// From the first pod to the last second; what it all came to.
async fn run(options: Options, report: Report) -> Result<Stage, Failure> {
    let (mut stage, service) = tokio::select! {
        prepared = prepare(options, report) => prepared,
        () = interrupted() => Err(Failure { code: 130, message: INTERRUPTED.to_owned() }),
    }?;
    let outcome = tokio::select! {
        outcome = go_through(&mut stage, service.as_ref()) => outcome,
        () = interrupted() => Err(INTERRUPTED.to_owned()),
    };
    match (outcome, stage.options.watch) {
        (Ok(()), Some(seconds)) => watch::watch(&mut stage, seconds).await,
        (Ok(()), None) => {}
        (Err(message), _) => {
            eprintln!("smoke: {message}");
            stage.summary.error = Some(message);
        }
    }
    stage.client.shutdown().await;
    Ok(stage)
}

/// Starts what is to be started, and connects.
async fn prepare(options: Options, report: Report) -> Result<(Stage, Option<Service>), Failure> {
    let builder = Client::builder()
        .request_timeout(options.timeout)
        .discovery_options(options.discovery())
        .max_value_size(options.value_size.max(MIB));
    let (builder, service) = match &options.target {
        Target::Own { memcached } => {
            // Polls are as far apart as the answers' TTL, within the bounds asked for.
            let service = Service::builder().pods(steps::PODS).ttl(Duration::from_secs(1));
            let service = if *memcached { service.memcached() } else { service };
            let service = service.start().await.map_err(|error| Failure::new(&error))?;
            let what = if *memcached { "memcached processes" } else { "pods in this process" };
            report.say(&format!(
                "{}, a service of {} {what}, with DNS at {}\n",
                service.name(),
                steps::PODS,
                service.dns().addr()
            ));
            let pods = SrvDiscovery::new(service.name()).nameservers([service.dns().addr()]);
            (builder.discovery(pods), Some(service))
        }
        Target::Service { name, nameservers, port_name } => {
            report.say(&format!("{name}\n"));
            let pods = SrvDiscovery::new(name).nameservers(nameservers.iter().copied());
            let pods = match port_name {
                Some(port) => pods.port_name(port),
                None => pods,
            };
            (builder.discovery(pods), None)
        }
        Target::Nodes(nodes) => (builder.nodes(nodes), None),
    };
    let client = builder.connect().await.map_err(|error| {
        // What discovery finds wrong is not about the arguments: those were checked.
        let is_discoverys = error.source().is_some_and(|source| source.is::<DiscoveryError>());
        let code = if error.kind() == ErrorKind::Config && !is_discoverys { 2 } else { 1 };
        Failure { code, ..Failure::new(&error) }
    });
    let client = client.inspect_err(|failure| {
        if options.json {
            report.summary(false, &Summary { error: Some(failure.message.clone()), ..Summary::default() });
        }
    })?;
    report.nodes(&client.topology());
    let load = Load::new(client.clone(), &options);
    let changes = client.watch_topology();
    Ok((Stage { options, client, changes, load, report, summary: Summary::default() }, service))
}

/// Writes and reads all keys, then takes a service of our own through its life.
async fn go_through(stage: &mut Stage, service: Option<&Service>) -> Result<(), String> {
    stage.report.say(&format!("\n{} keys are written and read", stage.options.keys));
    let mut step = Step::new("keys are written and read");
    let tally = stage.round_trip(&mut step).await;
    let shares = stage.shares();
    if service.is_some() {
        for share in &shares {
            let what = format!("keys of {}, by its share of the ring", pod_name(&share.id));
            step.sample(what, share.exact, stage.keys(), share.keys as u64);
        }
    }
    stage.done(&step);
    stage.report.say("");
    stage.report.shares(&shares);
    stage.report.say("");
    stage.report.pods(&tally);
    match service {
        Some(service) => steps::run(stage, service).await.map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// Why nothing could be tried.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(error: &(dyn StdError + 'static)) -> Self {
        let chain = std::iter::successors(Some(error), |&error| error.source());
        Self { code: 1, message: chain.map(ToString::to_string).collect::<Vec<_>>().join(": ") }
    }

    fn tell(self) -> ExitCode {
        eprintln!("smoke: {}", self.message);
        self.code.into()
    }
}

fn misused(message: &str) -> ExitCode {
    eprintln!("smoke: {message}\nsmoke: --help tells what can be asked for");
    ExitCode::from(2)
}

fn log(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    Ok(())
}
