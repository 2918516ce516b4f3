//! An operator's tool: exercises a memcached service through memring and checks every value.
//!
//! `cargo run --release --example smoke` needs only Rust. It starts a service of its own, takes it through restarts,
//! scaling and a DNS outage, and prints the expected and the actual result of each step. `--service` and `--nodes` test
//! a real service. See `--help`.

mod interrupt;
mod json;
mod load;
mod options;
mod report;
mod session;
mod stall_detector;
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
use crate::session::Session;
use crate::stall_detector::StallDetector;
use crate::step::{Step, pod_name};

/// memcached's default limit for an item, and memring's default limit for a value.
const MIB: usize = 1024 * 1024;

/// The maximum number of runs against a service of our own, if the machine stalls.
const MAX_ATTEMPTS: usize = 3;
/// A machine that stalls for this long makes operations late without any fault of client or server.
const STALL_THRESHOLD: Duration = Duration::from_millis(400);

const INTERRUPTED: &str = "interrupted";

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return usage_error(&error.to_string()),
    };
    if let Some(filter) = &options.log
        && let Err(error) = init_logging(filter)
    {
        return usage_error(&format!("--log {filter}: {error}"));
    }
    let report = Report::new(options.json);
    let stalls = StallDetector::start();
    let mut attempts = if options.target.is_own() { MAX_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        stalls.reset();
        let session = match run(options.clone(), report.clone()).await {
            Ok(session) => session,
            Err(failure) => return failure.report(),
        };
        let ok = session.is_ok();
        let stall = stalls.longest();
        if !ok && attempts > 0 && stall >= STALL_THRESHOLD && session.can_be_retried() {
            session.report.retry(stall);
            continue;
        }
        session.report.summary(ok, &session.summary);
        return if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
}

/// Runs one session, from starting or finding the service to closing the client.
async fn run(options: Options, report: Report) -> Result<Session, Failure> {
    let (mut session, service) = tokio::select! {
        prepared = prepare(options, report) => prepared,
        () = interrupted() => Err(Failure { code: 130, message: INTERRUPTED.to_owned() }),
    }?;
    let outcome = tokio::select! {
        outcome = run_steps(&mut session, service.as_ref()) => outcome,
        () = interrupted() => Err(INTERRUPTED.to_owned()),
    };
    match (outcome, session.options.watch) {
        (Ok(()), Some(seconds)) => watch::watch(&mut session, seconds).await,
        (Ok(()), None) => {}
        (Err(message), _) => {
            eprintln!("smoke: {message}");
            session.summary.error = Some(message);
        }
    }
    session.client.shutdown().await;
    Ok(session)
}

/// Starts the service, if it is our own, and connects the client.
async fn prepare(options: Options, report: Report) -> Result<(Session, Option<Service>), Failure> {
    let builder = Client::builder()
        .request_timeout(options.timeout)
        .discovery_options(options.discovery())
        .max_value_size(options.value_size.max(MIB));
    let (builder, service) = match &options.target {
        Target::Own { memcached } => {
            // The client polls once a TTL, within its bounds for the poll interval.
            let service = Service::builder().pods(steps::PODS).ttl(Duration::from_secs(1));
            let service = if *memcached { service.memcached() } else { service };
            let service = service.start().await.map_err(|error| Failure::new(&error))?;
            let kind = if *memcached { "memcached processes" } else { "pods in this process" };
            report.text(&format!(
                "{}: a service of {} {kind}, DNS server at {}\n",
                service.name(),
                steps::PODS,
                service.dns().addr()
            ));
            let discovery = SrvDiscovery::new(service.name()).nameservers([service.dns().addr()]);
            (builder.discovery(discovery), Some(service))
        }
        Target::Service { name, nameservers, port_name } => {
            report.text(&format!("{name}\n"));
            let discovery = SrvDiscovery::new(name).nameservers(nameservers.iter().copied());
            let discovery = match port_name {
                Some(port) => discovery.port_name(port),
                None => discovery,
            };
            (builder.discovery(discovery), None)
        }
        Target::Nodes(nodes) => (builder.nodes(nodes), None),
    };
    let client = builder.connect().await.map_err(|error| {
        // The arguments were checked before, so a configuration error of discovery is about the service.
        let is_from_discovery = error.source().is_some_and(|source| source.is::<DiscoveryError>());
        let code = if error.kind() == ErrorKind::Config && !is_from_discovery { 2 } else { 1 };
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
    Ok((Session { options, client, changes, load, report, summary: Summary::default() }, service))
}

/// Writes and reads all keys, then runs the steps if the service is our own.
async fn run_steps(session: &mut Session, service: Option<&Service>) -> Result<(), String> {
    session.report.text(&format!("\nwrite and read {} keys", session.options.keys));
    let mut step = Step::new("write and read all keys");
    let tally = session.round_trip(&mut step).await;
    let shares = session.shares();
    if service.is_some() {
        for share in &shares {
            let what = format!("keys of {}, from its share of the ring", pod_name(&share.id));
            step.expect_sample(what, share.exact, session.keys(), share.keys as u64);
        }
    }
    session.finish_step(&step);
    session.report.text("");
    session.report.shares(&shares);
    session.report.text("");
    session.report.pods(&tally);
    match service {
        Some(service) => steps::run(session, service).await.map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// A session that could not start.
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

    fn report(self) -> ExitCode {
        eprintln!("smoke: {}", self.message);
        self.code.into()
    }
}

fn usage_error(message: &str) -> ExitCode {
    eprintln!("smoke: {message}\nsmoke: see --help for the options");
    ExitCode::from(2)
}

fn init_logging(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    Ok(())
}
