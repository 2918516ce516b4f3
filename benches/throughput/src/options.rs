//! The command line.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use lexopt::prelude::*;

use crate::cells::{LARGEST, Part, SMALL, Threads};
use crate::contenders::Kind;
use crate::key_choice::KeyChoice;
use crate::workload::{BATCH_KEYS, Op};

/// With values of 100 bytes, each of the four servers then uses about 200 MB.
const MAX_ITEMS: usize = 1_000_000;

pub(crate) const HELP: &str = "\
Measures memring beside a raw ceiling (and other clients, if built with --features peers) on four memcached processes
that it starts. Prints Markdown tables: the median over the rounds of the ratio to the ceiling, and memring's goals.

Usage: memring-throughput [OPTIONS]
       memring-throughput --serve [--value-size BYTES] [--items N]
       memring-throughput --count N --nodes HOST:PORT,... [--op OP] [--window N] [--contender NAME]
                          [--value-size BYTES] [--items N] [--keys ORDER]

--serve starts the servers, stores the items, prints the servers' addresses, and runs until its input ends. --count
runs exactly N operations on them, on one thread, for tools that count instructions and system calls. OP is get (the
default), miss, set, mixed, get_many or set_many. --value-size [100] and --items must be the same for both.

Workload:
      --quick                 only what the goals need, memring and the ceilings, in about a minute
      --only PART,...         get, sizes, miss, set, mixed, get_many, set_many, relay, against, memory, idle
      --windows N,...         numbers of concurrent operations, over all nodes
      --value-size BYTES      only the cells with values of this size
      --keys ORDER            key order of single-key operations: sequential, uniform, zipf (0.99) [uniform]
      --items N               number of items; large values have at most 128 MiB in all [10,000, at most 16 MiB]
      --runtime current|2     one thread or two workers [both]
      --contenders NAME,...   contenders beside the ceiling
      --against PROGRAM       another memcached, on which memring is measured too

Method:
      --rounds N              rounds that count, after one to warm up [7; 3 with --quick]
      --run MS                duration of each run [400; 250 with --quick]

Output:
      --json FILE             write every sample
      --svg FILE              write a plot of get: fraction of the ceiling by window
  -h, --help                  print this text

MEMCACHED is the program to start [memcached].";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) only: Option<Vec<Part>>,
    pub(crate) windows: Option<Vec<usize>>,
    pub(crate) value_size: Option<usize>,
    pub(crate) keys: KeyChoice,
    pub(crate) threads: Vec<Threads>,
    pub(crate) contenders: Vec<Kind>,
    pub(crate) memcached: String,
    pub(crate) against: Option<String>,
    pub(crate) rounds: usize,
    pub(crate) run: Duration,
    pub(crate) json: Option<OsString>,
    pub(crate) svg: Option<OsString>,
}

/// The command to run.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Measure(Options),
    Serve(Serve),
    Count(Count),
}

/// Options of `--serve`: servers with the items of one value size.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) memcached: String,
    pub(crate) value_size: usize,
    pub(crate) keys: KeyChoice,
}

/// Options of `--count`: a fixed number of operations.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) count: u64,
    pub(crate) nodes: Vec<SocketAddr>,
    pub(crate) op: Op,
    pub(crate) window: usize,
    pub(crate) kind: Kind,
    pub(crate) value_size: usize,
    pub(crate) keys: KeyChoice,
}

impl Command {
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let args: Vec<_> = args.into_iter().collect();
        if args.iter().any(|argument| argument == "--count") {
            return Ok(Self::Count(Count::parse(args)?));
        }
        if args.iter().any(|argument| argument == "--serve") {
            return Ok(Self::Serve(Serve::parse(args)?));
        }
        Ok(Options::parse(args)?.map_or(Self::Help, Self::Measure))
    }
}

impl Serve {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut options = Self { memcached: memcached(), value_size: SMALL, keys: KeyChoice::default() };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("serve") => {}
                Long("value-size") => options.value_size = parser.value()?.parse_with(value_size)?,
                Long("items") => options.keys.items = Some(parser.value()?.parse_with(items)?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

impl Count {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut options = Self {
            count: 0,
            nodes: Vec::new(),
            op: Op::Get,
            window: 64,
            kind: Kind::Memring,
            value_size: SMALL,
            keys: KeyChoice::default(),
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("count") => options.count = parser.value()?.parse()?,
                Long("nodes") => options.nodes = parser.value()?.parse_with(|text| list(text, node))?,
                Long("op") => options.op = parser.value()?.parse()?,
                Long("window") => options.window = parser.value()?.parse_with(positive)?,
                Long("value-size") => options.value_size = parser.value()?.parse_with(value_size)?,
                Long("keys") => options.keys.order = parser.value()?.parse()?,
                Long("items") => options.keys.items = Some(parser.value()?.parse_with(items)?),
                Long("contender") => options.kind = parser.value()?.parse_with(kind)?,
                other => return Err(other.unexpected()),
            }
        }
        if options.nodes.is_empty() { Err("--count needs --nodes".into()) } else { Ok(options) }
    }
}

/// Returns the program to start.
fn memcached() -> String {
    env::var("MEMCACHED").ok().filter(|program| !program.is_empty()).unwrap_or_else(|| "memcached".to_owned())
}

impl Options {
    /// Parses the arguments. Returns `None` for `--help`.
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, lexopt::Error> {
        let (mut quick, mut only, mut windows, mut threads) = (false, None, None, vec![Threads::One, Threads::Two]);
        let (mut contenders, mut against, mut rounds, mut run) = (None, None, None, None);
        let (mut json, mut svg, mut only_size, mut keys) = (None, None, None, KeyChoice::default());
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("quick") => quick = true,
                Long("only") => only = Some(parser.value()?.parse_with(|text| list(text, part))?),
                Long("windows") => windows = Some(parser.value()?.parse_with(|text| list(text, positive))?),
                Long("value-size") => only_size = Some(parser.value()?.parse_with(value_size)?),
                Long("keys") => keys.order = parser.value()?.parse()?,
                Long("items") => keys.items = Some(parser.value()?.parse_with(items)?),
                Long("runtime") => threads = parser.value()?.parse_with(runtime)?,
                Long("contenders") => contenders = Some(parser.value()?.parse_with(|text| list(text, kind))?),
                Long("against") => against = Some(parser.value()?.string()?),
                Long("rounds") => rounds = Some(parser.value()?.parse_with(positive)?),
                Long("run") => run = Some(parser.value()?.parse_with(positive)?),
                Long("json") => json = Some(parser.value()?),
                Long("svg") => svg = Some(parser.value()?),
                other => return Err(other.unexpected()),
            }
        }
        let all = || Kind::ALL.iter().copied().filter(|&kind| !quick || kind == Kind::Memring).collect();
        Ok(Some(Self {
            quick,
            only,
            windows,
            value_size: only_size,
            keys,
            threads,
            contenders: contenders.unwrap_or_else(all),
            memcached: memcached(),
            against,
            rounds: rounds.unwrap_or(if quick { 3 } else { 7 }),
            run: Duration::from_millis(run.unwrap_or(if quick { 250 } else { 400 }) as u64),
            json,
            svg,
        }))
    }

    pub(crate) fn wants(&self, part: Part) -> bool {
        let possible = part != Part::Against || self.against.is_some();
        possible && self.only.as_ref().is_none_or(|only| only.contains(&part))
    }

    pub(crate) fn wants_size(&self, value_size: usize) -> bool {
        self.value_size.is_none_or(|only| only == value_size)
    }
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(parse).collect()
}

fn part(text: &str) -> Result<Part, String> {
    let found = Part::ALL.into_iter().find(|(_, name)| *name == text);
    found.map(|(part, _)| part).ok_or_else(|| format!("unknown part {text:?}: see --help"))
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.iter().copied().find(|kind| kind.name() == text);
    let names = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("unknown contender {text:?}: this build has {}", names()))
}

fn node(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address"))
}

fn runtime(text: &str) -> Result<Vec<Threads>, String> {
    match text {
        "current" => Ok(vec![Threads::One]),
        "2" => Ok(vec![Threads::Two]),
        _ => Err(format!("{text:?} is neither current nor 2")),
    }
}

fn value_size(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (SMALL..=LARGEST).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number from {SMALL} to {LARGEST}"))
}

fn items(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (BATCH_KEYS..=MAX_ITEMS).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number from {BATCH_KEYS} to {MAX_ITEMS}"))
}

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("{text:?} is not a positive number"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Command, Options};
    use crate::key_choice::{KeyChoice, KeyOrder};

    fn parse(text: &str) -> Result<Command, String> {
        Command::parse(text.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_and_items_can_be_chosen() {
        let chosen = KeyChoice { order: KeyOrder::Zipf, items: Some(1_000_000) };
        match parse("--only get --keys zipf --items 1000000 --value-size 1024").unwrap() {
            Command::Measure(Options { keys, value_size: Some(1024), .. }) => assert_eq!(keys, chosen),
            other => panic!("{other:?}"),
        }
        match parse("--count 5 --nodes 127.0.0.1:1 --keys zipf --items 1000000").unwrap() {
            Command::Count(count) => assert_eq!((count.keys, count.value_size), (chosen, 100)),
            other => panic!("{other:?}"),
        }
        match parse("--serve --items 1000000 --value-size 1024").unwrap() {
            Command::Serve(serve) => assert_eq!((serve.keys.items, serve.value_size), (Some(1_000_000), 1024)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unless_chosen_keys_are_uniform() {
        let uniform = KeyChoice { order: KeyOrder::Uniform, items: None };
        match parse("--quick").unwrap() {
            Command::Measure(options) => assert_eq!((options.keys, options.value_size), (uniform, None)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn impossible_choices_are_errors() {
        for wrong in ["--keys random", "--items 99", "--items 1000001", "--value-size 99", "--value-size 1000001"] {
            parse(wrong).unwrap_err();
        }
        parse("--serve --keys zipf").unwrap_err();
    }
}
