//! Prints the node that owns each key, as memring or another client places it.
//!
//! ```text
//! echo user:42 | cargo run --example locate -- --placement php:ketama_weighted --node cache-0 --node cache-1=2
//! cargo run --example locate -- --node a --node b --diff --node a --node b --node c </dev/null
//! cargo run --example locate -- --vector FILE.json
//! ```

mod vector;

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use memring::{InvalidNodeId, NodeId, Placement, Ring, RingNode};

use self::vector::Vector;

const USAGE: &str = "\
Reads keys from standard input, one per line, and prints each with the node that owns it.

Usage: locate [--placement NAME] --node NODE[=WEIGHT]... [--diff --node NODE[=WEIGHT]...]
       locate [--placement NAME] --service NAME
       locate --vector FILE

  --placement NAME     the placement, such as php:ketama_weighted; native unless given.
                       The documentation of `Placement` lists all names.
  --node NODE[=WEIGHT] a node as host:port. Repeat it for every node, in the order of the other client.
  --service NAME       takes the nodes from the SRV records of a service, in natural order of their names,
                       as a memring client does
  --diff               starts a second list of nodes: prints the share of keys that move from the first list
                       to the second, and both nodes of every key
  --vector FILE        reads the client, its configuration, the servers and the keys from a JSON file,
                       and prints the index of each key's server
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("locate: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Options {
    placement: Option<Placement>,
    nodes: Vec<RingNode>,
    newer: Option<Vec<RingNode>>,
    service: Option<String>,
    vector: Option<String>,
}

async fn run() -> Result<(), Box<dyn Error>> {
    let Some(mut options) = parse_options()? else {
        print!("{USAGE}");
        return Ok(());
    };
    if let Some(file) = options.vector {
        return print_vector(&file);
    }
    if let Some(service) = &options.service {
        options.nodes = discover(service).await?;
    }
    if options.nodes.is_empty() {
        return Err("no nodes: give --node or --service (see --help)".into());
    }
    let mut placement = options.placement.unwrap_or_else(Placement::native);
    if options.service.is_some() {
        // Discovery has no order of its own, so a client uses the natural order.
        placement = placement.in_natural_order();
    }
    let newer = options.newer.map(|nodes| ring(&placement, nodes)).transpose()?;
    print_owners(&ring(&placement, options.nodes)?, newer.as_ref())
}

fn parse_options() -> Result<Option<Options>, Box<dyn Error>> {
    use lexopt::prelude::*;
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("placement") => options.placement = Some(parser.value()?.string()?.parse()?),
            Long("node") => {
                let node = parse_node(&parser.value()?.string()?)?;
                options.newer.as_mut().unwrap_or(&mut options.nodes).push(node);
            }
            Long("service") => options.service = Some(parser.value()?.string()?),
            Long("diff") => options.newer = Some(Vec::new()),
            Long("vector") => options.vector = Some(parser.value()?.string()?),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// Parses `host:port=weight`. Keeps the address unchanged, because other clients hash what they are given.
fn parse_node(text: &str) -> Result<RingNode, Box<dyn Error>> {
    let (address, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?;
    Ok(RingNode::new(address).with_weight(weight))
}

fn ring(placement: &Placement, nodes: Vec<RingNode>) -> Result<Ring, Box<dyn Error>> {
    if *placement != Placement::native() {
        return Ok(Ring::with_placement(placement, nodes)?);
    }
    // A memring client hashes identities: in lower case, with the port.
    let with_identity =
        |node: &RingNode| Ok(RingNode::from(&node.label().parse::<NodeId>()?).with_weight(node.weight()));
    Ok(Ring::new(nodes.iter().map(with_identity).collect::<Result<Vec<_>, InvalidNodeId>>()?)?)
}

async fn discover(service: &str) -> Result<Vec<RingNode>, Box<dyn Error>> {
    let client = memring::Client::builder().service(service).connect().await?;
    let nodes = client.topology().nodes.iter().map(|node| RingNode::from(&node.id).with_weight(node.weight)).collect();
    client.shutdown().await;
    Ok(nodes)
}

fn print_owners(ring: &Ring, newer: Option<&Ring>) -> Result<(), Box<dyn Error>> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if let Some(newer) = newer {
        let diff = Ring::diff(ring, newer);
        let about = if diff.is_exact { "" } else { "about " };
        writeln!(out, "{about}{:.2} % of the keys move", 100.0 * diff.moved())?;
        for pair in &diff.pairs {
            let name = |node: &Option<String>| node.clone().unwrap_or_else(|| "nowhere".to_owned());
            writeln!(out, "{:8.2} % from {} to {}", 100.0 * pair.share, name(&pair.from), name(&pair.to))?;
        }
    }
    let label = |ring: &Ring, key: &[u8]| ring.node_for(key).map(|node| node.label().to_owned()).unwrap_or_default();
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        let key = line.strip_suffix(b"\r").unwrap_or(&line);
        out.write_all(key)?;
        write!(out, "\t{}", label(ring, key))?;
        if let Some(newer) = newer {
            write!(out, "\t{}", label(newer, key))?;
        }
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

fn print_vector(file: &str) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let vector = Vector::parse(&text).map_err(|error| format!("{file}: {error}"))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for owner in vector.owners() {
        writeln!(out, "{}", owner.ok_or("there are no servers")?)?;
    }
    Ok(out.flush()?)
}

/// Returns whether the reader of the output stopped early, as in `locate | head`. That is not a failure.
fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
