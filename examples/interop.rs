//! Reads or writes a list of keys on servers shared with another client. `scripts/interop` runs it against real ones.
//!
//! ```text
//! interop read FILE --placement php:ketama_weighted --flags 0 --node 10.0.0.1:11211 --node 10.0.0.2:11211=2
//! ```
//!
//! FILE has a key and its value on each line, with a tab in between. Every value read must be that of the file, with
//! flags named: exit code 1 if one is not, 2 if something else is wrong.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use memring::{Client, Endpoint, Placement, SetOptions, StaticNodes};

#[derive(Default)]
struct Options {
    placement: Option<Placement>,
    namespace: Option<String>,
    flags: u32,
    nodes: Vec<Endpoint>,
    words: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop: {error}");
            ExitCode::from(2)
        }
    }
}

/// How many keys were not found, or found with another value or other flags.
async fn run() -> Result<usize, Box<dyn Error>> {
    let options = options()?;
    let [action, file] = &options.words[..] else { return Err("say read or write, and a file".into()) };
    let text = std::fs::read_to_string(file)?;
    let entries = text.lines().map(|line| line.split_once('\t').ok_or("a line without a tab"));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;

    let whole = Client::builder()
        .discovery(StaticNodes::new(options.nodes))
        .placement(options.placement.unwrap_or_else(Placement::native))
        .request_timeout(Duration::from_secs(10))
        .connect()
        .await?;
    let client = match options.namespace {
        Some(prefix) => whole.namespace(prefix)?,
        None => whole.clone(),
    };
    let mut wrong = 0;
    for (key, value) in &entries {
        match action.as_str() {
            "write" => {
                let stored = SetOptions::from(Duration::from_secs(600)).flags(options.flags);
                client.set(key, value.to_string(), stored).await?;
            }
            "read" => {
                let what = match client.get(key).await? {
                    None => "not found".to_owned(),
                    Some(item) if item.value != value.as_bytes() => "another value".to_owned(),
                    Some(item) if item.flags != options.flags => format!("flags {}", item.flags),
                    Some(_) => continue,
                };
                wrong += 1;
                if wrong == 1 {
                    eprintln!("{key}: {what}, looked for on {}", client.node_for(key)?);
                }
            }
            other => return Err(format!("{other}? read or write").into()),
        }
    }
    whole.shutdown().await;
    if wrong > 0 {
        eprintln!("{wrong} of {} keys", entries.len());
    }
    Ok(wrong)
}

fn options() -> Result<Options, Box<dyn Error>> {
    use lexopt::prelude::*;
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("placement") => options.placement = Some(parser.value()?.string()?.parse()?),
            Long("namespace") => options.namespace = Some(parser.value()?.string()?),
            Long("flags") => options.flags = parser.value()?.parse()?,
            Long("node") => {
                let node = parser.value()?.string()?;
                let (address, weight) = node.split_once('=').unwrap_or((&node, "1"));
                options.nodes.push(Endpoint::new(address.parse()?).with_weight(weight.parse()?));
            }
            Value(word) => options.words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}
