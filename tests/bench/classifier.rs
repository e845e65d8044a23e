//! The whole classifier, from texts to predictions: sentences per second for each level of CPU kernels and each
//! arithmetic that it has instructions for, with many texts at once and one at a time, and the share of tokenization.
//!
//!     cargo bench --bench classifier [-- MODEL [FILE]]
//!
//! MODEL is a local checkpoint, by default the embedded model; FILE has one text per line, by default generated ones.
//! `AGNEWS_CPU` selects one level, or `candle` for candle's own operations, the baseline.

use agnews::checkpoint::hub::{Hub, HubOptions};
use agnews::checkpoint::{Checkpoint, CheckpointSpec};
use agnews::classifier::{Classifier, ClassifierOptions};
use agnews::kernels::{Level, Precision};
use agnews::model::{BackendChoice, CpuChoice};
use anyhow::{Error, Result};
use std::io::Write;
use std::time::{Duration, Instant};

/// Duration of each measurement, after a first run that warms up the model.
const PERIOD: Duration = Duration::from_secs(2);
/// Number of texts per call.
const MANY: usize = 128;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let spec = CheckpointSpec::parse(&arguments.next().unwrap_or("builtin".into()), None).map_err(Error::msg)?;
    let hub = Hub::new(HubOptions::from_env(&|_| None, true), &());
    let checkpoint = Checkpoint::open(&spec, &hub)?;
    let texts: Vec<String> = match arguments.next() {
        Some(file) => std::fs::read_to_string(file)?.lines().take(MANY).map(str::to_owned).collect(),
        None => (0..MANY).map(made_up).collect(),
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let chosen: Option<CpuChoice> = match std::env::var("AGNEWS_CPU") {
        Ok(choice) => Some(choice.parse().map_err(Error::msg)?),
        Err(_) => None,
    };
    let levels = Level::ALL.into_iter().filter(|level| level.is_supported());
    let kernels = levels.flat_map(|level| {
        let precisions = Precision::ALL.into_iter().filter(move |precision| precision.is_native_on(level));
        precisions.map(move |precision| BackendChoice::kernels(level, precision))
    });
    let backends = std::iter::once(BackendChoice::candle()).chain(kernels);
    let mut out = std::io::stdout();
    writeln!(out, "{} texts of {checkpoint}, {} threads", texts.len(), rayon::current_num_threads())?;
    writeln!(out, "{:24} {:>12} {:>12} {:>13}", "", "at once, /s", "singly, /s", "tokenization")?;
    for backend in backends.filter(|backend| chosen.is_none_or(|chosen| chosen == backend.cpu)) {
        let classifier = Classifier::load(&checkpoint, &ClassifierOptions { backend, ..Default::default() })?;
        let at_once = median(|| classifier.classify(&texts).map(drop))?;
        let tokenization = median(|| classifier.encode(&texts).map(drop))?;
        let mut turn = texts.iter().cycle();
        let singly = median(|| classifier.classify(&[turn.next().expect("a cycle does not end")]).map(drop))?;
        writeln!(
            out,
            "{:24} {:12.1} {:12.1} {:11.1} %",
            classifier.backend().to_string(),
            texts.len() as f64 / at_once,
            1.0 / singly,
            100.0 * tokenization / at_once
        )?;
    }
    Ok(())
}

/// The median duration of `work` in seconds, repeated until the period is over.
fn median(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let start = Instant::now();
    let mut seconds = Vec::new();
    while start.elapsed() < PERIOD || seconds.len() < 3 {
        let run = Instant::now();
        work()?;
        seconds.push(run.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// A text of 20 to 60 words, all of them different.
fn made_up(number: usize) -> String {
    const WORDS: [&str; 23] = [
        "the",
        "company",
        "said",
        "on",
        "Tuesday",
        "that",
        "its",
        "new",
        "orbiter",
        "would",
        "reach",
        "Saturn's",
        "rings",
        "after",
        "a",
        "goalless",
        "draw",
        "in",
        "Lisbon",
        "while",
        "prices",
        "fell",
        "unexpectedly",
    ];
    let words = (0..20 + number * 7 % 41).map(|i| WORDS[(number * 5 + i * (1 + number % 11)) % WORDS.len()]);
    words.collect::<Vec<_>>().join(" ") + "."
}
