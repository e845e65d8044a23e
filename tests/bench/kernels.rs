//! The CPU kernels on the shapes of BERT-base and of small models: GFLOP/s of one thread, and the fraction of the
//! processor's peak at multiplying and adding. `AGNEWS_CPU` selects one level; a word on the command line selects the
//! lines that contain it.

use agnews::kernels::{
    self, peak, Activation, Attention, Combined, LayerNorm, Level, Linear, PackedWeight, Parallelism, Positions,
    Precision, Weight,
};
use std::cell::Cell;
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

/// (in, out) of the linear layers.
const SHAPES: [(usize, usize); 6] = [(768, 768), (768, 2304), (768, 3072), (3072, 768), (384, 384), (128, 512)];
/// Of BERT-base.
const LAYERS: usize = 12;
/// Tokens, and the threads that multiply them: 53 are one text of medium length, 384 a batch on one of several threads.
const ROWS: [(usize, Parallelism); 7] = [
    (1, Parallelism::Single),
    (16, Parallelism::Single),
    (53, Parallelism::Single),
    (384, Parallelism::Single),
    (1024, Parallelism::Single),
    (16, Parallelism::Pool),
    (53, Parallelism::Pool),
];
/// Duration of each measurement.
const PERIOD: Duration = Duration::from_millis(200);

fn main() -> std::io::Result<()> {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let chosen: Option<Level> = match std::env::var("AGNEWS_CPU") {
        Ok(level) => Some(level.parse().map_err(std::io::Error::other)?),
        Err(_) => None,
    };
    let levels = Level::ALL.into_iter().filter(|&level| level.is_supported() && chosen.is_none_or(|it| it == level));
    for level in levels {
        for precision in Precision::ALL.into_iter().filter(|precision| precision.is_native_on(level)) {
            let work = || peak::multiply_add(level, precision, 100_000);
            let report = Report { level, peak: best(work), only: only.as_deref() };
            report.line(&format!("multiply and add, {precision}"), work)?;
            linear(&report, precision)?;
        }
        let report =
            Report { level, peak: best(|| peak::multiply_add(level, Precision::F32, 100_000)), only: only.as_deref() };
        attention(&report)?;
        layer_norm(&report)?;
    }
    Ok(())
}

/// Floating-point operations per second in the best of many runs; `work` returns the number of operations of one.
fn best(work: impl Fn() -> u64) -> f64 {
    let start = Instant::now();
    let mut best = 0.0f64;
    while start.elapsed() < PERIOD {
        let run = Instant::now();
        let operations = work();
        best = best.max(operations as f64 / run.elapsed().as_secs_f64());
    }
    best
}

struct Report<'a> {
    level: Level,
    peak: f64,
    only: Option<&'a str>,
}

impl Report<'_> {
    fn line(&self, name: &str, work: impl Fn() -> u64) -> std::io::Result<()> {
        let name = format!("{:10} {name}", self.level.to_string());
        if self.only.is_some_and(|only| !name.contains(only)) {
            return Ok(());
        }
        let rate = best(work);
        let share = 100.0 * rate / self.peak;
        writeln!(std::io::stdout(), "{name:58} {:7.1} GFLOP/s {share:4.0} % of the peak", rate / 1e9)
    }
}

/// Numbers of either sign, none of them special.
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 1000.0).collect()
}

/// The weights and the rows of [`LAYERS`] layers in turn, as in a model, so neither is in the first-level cache.
fn linear(report: &Report, precision: Precision) -> std::io::Result<()> {
    for (k, out) in SHAPES {
        let (weight, bias) = (numbers(k * out), numbers(out));
        let activation = if out > k { Activation::Gelu } else { Activation::Identity };
        // As in a warm model.
        let is_packed = PackedWeight::is_of_use(report.level, precision);
        let stored = vec![weight; if is_packed { 1 } else { LAYERS }];
        let pack = |_| PackedWeight::new(report.level, precision, out, &stored[0]);
        let packed: Vec<PackedWeight> = (0..if is_packed { LAYERS } else { 0 }).map(pack).collect();
        let layer_weight =
            |i: usize| if is_packed { Weight::Packed(&packed[i]) } else { Weight::Stored(&stored[i][..]) };
        for (rows, parallelism) in ROWS {
            let x = vec![numbers(rows * k); LAYERS];
            let turn = Cell::new(0);
            report.line(&format!("linear {k} to {out}, {precision}, {rows} rows, {parallelism:?}"), || {
                turn.set((turn.get() + 1) % LAYERS);
                let layer = Linear { weight: layer_weight(turn.get()), bias: &bias, activation, precision };
                black_box(kernels::linear(report.level, parallelism, layer, &x[turn.get()], Combined::Alone));
                (2 * rows * k * out) as u64
            })?;
        }
    }
    Ok(())
}

fn attention(report: &Report) -> std::io::Result<()> {
    for (heads, head_dim) in [(12, 64), (12, 32)] {
        for (length, count) in [(16, 32), (53, 10), (128, 4), (512, 1)] {
            let hidden = heads * head_dim;
            let operand = numbers(length * count * hidden);
            let offsets: Vec<usize> = (0..=count).map(|i| i * length).collect();
            let table = numbers((2 * length - 1) * hidden);
            let rotation = &table[..length * head_dim / 2];
            let plain = Attention {
                query: &operand,
                key: &operand,
                value: &operand,
                heads,
                head_dim,
                query_offsets: &offsets,
                offsets: &offsets,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window: None,
                positions: Positions::None,
            };
            for (variant, window, positions, products) in [
                ("", None, Positions::None, 2),
                (", rotary", None, Positions::Rotary { cos: rotation, sin: rotation }, 2),
                (", window of 64", Some(64), Positions::None, 2),
                (", bias", None, Positions::Bias(&table[..(2 * length - 1) * heads]), 2),
                (", disentangled", None, Positions::Disentangled { key: Some(&table), query: Some(&table) }, 4),
            ] {
                let operands = Attention { window, positions, ..plain };
                report.line(&format!("attention {heads} x {head_dim}, {count} of {length} tokens{variant}"), || {
                    black_box(kernels::attention(report.level, Parallelism::Single, operands));
                    (2 * products * count * length * length * hidden) as u64
                })?;
            }
        }
    }
    Ok(())
}

fn layer_norm(report: &Report) -> std::io::Result<()> {
    for hidden in [768, 384] {
        let (x, weight) = (numbers(256 * hidden), numbers(hidden));
        let norm = LayerNorm { weight: &weight, bias: &weight, eps: 1e-12 };
        report.line(&format!("layer norm of {hidden}, 256 rows"), || {
            black_box(kernels::layer_norm(report.level, Parallelism::Single, norm, &x, Some(&x)));
            // One addition for the residual, one for the mean, three for the variance, four for the result.
            9 * 256 * hidden as u64
        })?;
    }
    Ok(())
}
