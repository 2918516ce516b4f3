//! Rounds in which all contenders run in turn, so that a disturbance of the machine affects all alike.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::cells::{Cell, Entrant, Threads};
use crate::contenders::Contender;
use crate::data::Dataset;
use crate::meter::{Latencies, Sample};
use crate::options::{Count, Options};
use crate::testbed::Testbed;
use crate::workload::{Until, Work};

/// The samples of a cell: one per entrant and round.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) samples: Vec<Vec<Sample>>,
}

impl Row {
    /// Returns the median over the rounds of a function of an entrant's sample and the base's sample.
    pub(crate) fn median(&self, entrant: usize, of: impl Fn(&Sample, &Sample) -> f64) -> f64 {
        median(self.samples[entrant].iter().zip(&self.samples[0]).map(|(own, base)| of(own, base)).collect())
    }

    /// Returns an entrant's throughput as a fraction of the base's.
    pub(crate) fn ratio(&self, entrant: usize) -> f64 {
        self.median(entrant, |own, base| own.per_second() / base.per_second())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

pub(crate) fn runtime(threads: Threads) -> Outcome<Runtime> {
    Ok(match threads {
        Threads::One => Builder::new_current_thread().enable_all().build()?,
        Threads::Two => Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
    })
}

/// Measures the cells. Cells with the same number of threads share a runtime and connections.
pub(crate) fn run(options: &Options, cells: Vec<Cell>, testbed: &Testbed) -> Outcome<Vec<Row>> {
    let latencies = Arc::new(Latencies::new()?);
    let mut datasets: HashMap<usize, Arc<Dataset>> = HashMap::new();
    let mut rows = Vec::new();
    let total = cells.len();
    for threads in [Threads::One, Threads::Two] {
        let runtime = runtime(threads)?;
        let mut connected: HashMap<Entrant, Contender> = HashMap::new();
        for cell in cells.iter().filter(|cell| cell.threads == threads) {
            eprintln!("{}/{total}: {cell}", rows.len() + 1);
            let data = match datasets.entry(cell.size) {
                Entry::Occupied(data) => Arc::clone(data.get()),
                Entry::Vacant(place) => {
                    let data = Arc::clone(place.insert(Arc::new(Dataset::new(cell.size, options.keys))));
                    testbed.fill(&data)?;
                    data
                }
            };
            let until = Until::Elapsed(options.run);
            let work = Work { op: cell.op, data, window: cell.window, until, latencies: Arc::clone(&latencies) };
            rows.push(measure(options.rounds, cell, &work, &mut connected, testbed, &runtime)?);
        }
    }
    Ok(rows)
}

fn measure(
    rounds: usize,
    cell: &Cell,
    work: &Work,
    connected: &mut HashMap<Entrant, Contender>,
    testbed: &Testbed,
    runtime: &Runtime,
) -> Outcome<Row> {
    let mut samples = vec![Vec::new(); cell.entrants.len()];
    for round in 0..=rounds {
        for (entrant, samples) in cell.entrants.iter().zip(&mut samples) {
            let contender = match connected.entry(*entrant) {
                Entry::Occupied(contender) => contender.into_mut(),
                Entry::Vacant(place) => {
                    place.insert(Contender::connect(entrant.kind, testbed.nodes(entrant.route), runtime)?)
                }
            };
            let sample = contender.run(work, runtime).map_err(|error| format!("{entrant}, {cell}: {error}"))?;
            // The first round is a warm-up.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(Row { cell: cell.clone(), samples })
}

/// Runs the operations of `--count`, once.
pub(crate) fn count(count: &Count) -> Outcome<()> {
    let runtime = runtime(Threads::One)?;
    let mut contender = Contender::connect(count.kind, &count.nodes, &runtime)?;
    let work = Work {
        op: count.op,
        data: Arc::new(Dataset::new(count.value_size, count.keys)),
        window: count.window,
        until: Until::Count(count.count),
        latencies: Arc::new(Latencies::new()?),
    };
    contender.run(&work, &runtime)?;
    Ok(())
}
