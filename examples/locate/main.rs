//! Says which node owns which key, as memring or another client places it.
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
Reads keys from standard input, one a line, and prints each with its node.

  --placement NAME     native unless given; see `Placement`'s documentation for the names
  --node NODE[=WEIGHT] a node, host:port; give it as often as there are nodes, in the other client's order
  --service NAME       instead of nodes: those that the service's SRV records name now, as a client takes them: in natural
                       order of their names
  --diff               the nodes that follow are a second list: prints how much would move, and for each key both nodes
  --vector FILE        prints the index of each key's owner, for a file that names client, config, servers and keys
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
    let Some(mut options) = options()? else {
        print!("{USAGE}");
        return Ok(());
    };
    if let Some(file) = options.vector {
        return owners(&file);
    }
    if let Some(service) = &options.service {
        options.nodes = nodes_of(service).await?;
    }
    if options.nodes.is_empty() {
        return Err("no nodes: give --node or --service (--help says more)".into());
    }
    let mut placement = options.placement.unwrap_or_else(Placement::native);
    if options.service.is_some() {
        // Nobody has listed them: as a client takes them.
        placement = placement.in_natural_order();
    }
    let newer = options.newer.map(|nodes| ring(&placement, nodes)).transpose()?;
    locate(&ring(&placement, options.nodes)?, newer.as_ref())
}

fn options() -> Result<Option<Options>, Box<dyn Error>> {
    use lexopt::prelude::*;
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("placement") => options.placement = Some(parser.value()?.string()?.parse()?),
            Long("node") => {
                let node = node(&parser.value()?.string()?)?;
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

/// As it is given, for other clients hash what they are given.
fn node(text: &str) -> Result<RingNode, Box<dyn Error>> {
    let (address, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.parse().map_err(|_| format!("{weight:?} is no weight"))?;
    Ok(RingNode::new(address).with_weight(weight))
}

fn ring(placement: &Placement, nodes: Vec<RingNode>) -> Result<Ring, Box<dyn Error>> {
    if *placement != Placement::native() {
        return Ok(Ring::with_placement(placement, nodes)?);
    }
    // The client goes by identities: in lower case, with their port.
    let identified = |node: &RingNode| Ok(RingNode::from(&node.label().parse::<NodeId>()?).with_weight(node.weight()));
    Ok(Ring::new(nodes.iter().map(identified).collect::<Result<Vec<_>, InvalidNodeId>>()?)?)
}

async fn nodes_of(service: &str) -> Result<Vec<RingNode>, Box<dyn Error>> {
    let client = memring::Client::builder().service(service).connect().await?;
    let nodes = client.topology().nodes.iter().map(|node| RingNode::from(&node.id).with_weight(node.weight)).collect();
    client.shutdown().await;
    Ok(nodes)
}

fn locate(ring: &Ring, newer: Option<&Ring>) -> Result<(), Box<dyn Error>> {
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

fn owners(file: &str) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let vector = Vector::parse(&text).map_err(|error| format!("{file}: {error}"))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for owner in vector.owners() {
        writeln!(out, "{}", owner.ok_or("there are no servers")?)?;
    }
    Ok(out.flush()?)
}

/// `locate | head` is no failure.
fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
