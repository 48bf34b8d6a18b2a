//! Medians, ratios, and how they are shown.

use serde::Serialize;

use super::machine::Machine;
use super::{DECODE, PREFILL};
use crate::table::{markdown, megabytes};

/// Figures of one engine on one model; speeds in tokens per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Of a prompt, with the logits of all its positions.
    pub prefill_all_logits: f64,
    /// Of a prompt, with the logits of its last position alone; nothing where the graph can't.
    pub prefill_last_logits: Option<f64>,
    /// Of tokens fed one by one.
    pub decode: f64,
    /// The most memory that the process held.
    pub peak_bytes: Option<u64>,
}

/// Two engines side by side, with the figures of every round.
pub struct Comparison {
    name: &'static str,
    rival_model: &'static str,
    our_model: &'static str,
    pub rival: Vec<Figures>,
    pub ours: Vec<Figures>,
}

impl Comparison {
    /// A comparison without figures yet.
    pub fn new(name: &'static str, rival_model: &'static str, our_model: &'static str) -> Self {
        Self { name, rival_model, our_model, rival: Vec::new(), ours: Vec::new() }
    }
}

/// What was measured.
#[derive(Debug, PartialEq, Serialize)]
pub struct Report {
    machine: Machine,
    threads: usize,
    rounds: usize,
    prefill: usize,
    decode: usize,
    onnxruntime: String,
    planish: &'static str,
    comparisons: Vec<Result>,
}

/// Medians of one comparison, and ours divided by the rival's.
#[derive(Debug, PartialEq, Serialize)]
struct Result {
    name: &'static str,
    rival_model: &'static str,
    our_model: &'static str,
    rival: Figures,
    ours: Figures,
    ratio: Ratios,
}

/// Ours divided by the rival's. A rival's prompt is always one with all logits.
#[derive(Debug, PartialEq, Serialize)]
struct Ratios {
    prefill_all_logits: f64,
    prefill_last_logits: Option<f64>,
    decode: f64,
    peak_bytes: Option<f64>,
}

impl Report {
    /// Takes the medians.
    pub fn new(
        machine: Machine,
        onnxruntime: String,
        threads: usize,
        comparisons: &[Comparison],
    ) -> Self {
        Self {
            machine,
            threads,
            rounds: comparisons.first().map_or(0, |comparison| comparison.ours.len()),
            prefill: PREFILL,
            decode: DECODE,
            onnxruntime,
            planish: env!("CARGO_PKG_VERSION"),
            comparisons: comparisons.iter().map(Result::new).collect(),
        }
    }

    /// A table, and under it what was measured on what.
    pub fn markdown(&self) -> String {
        let header = [
            "engine and model",
            "prefill, all logits",
            "prefill, last logits",
            "decoding",
            "peak memory",
        ];
        let rows: Vec<_> = self.comparisons.iter().flat_map(|result| self.rows(result)).collect();
        let Machine { cpu, instruction_sets, cores, load } = &self.machine;
        let load = load.map_or(String::new(), |load| format!(", load {load:.1} before"));
        let models = self.comparisons.iter().map(|result| {
            let Result { name, rival_model, our_model, .. } = result;
            format!("- {name}: ONNX Runtime runs {rival_model}; planish runs {our_model}.\n")
        });
        format!(
            "{}\nTokens per second, medians of {} rounds; prompts of {} tokens, then {} single \
             tokens; {} threads.\nONNX Runtime's graphs compute the logits of every position: its \
             one prefill speed is what both of ours are divided by.\n{}- {cpu}, {cores} cores, \
             {}{load}\n",
            markdown(&header, &rows),
            self.rounds,
            self.prefill,
            self.decode,
            self.threads,
            models.collect::<String>(),
            instruction_sets.join(" "),
        )
    }

    fn rows(&self, result: &Result) -> [Vec<String>; 3] {
        let rival = format!("ONNX Runtime {}, {}", self.onnxruntime, result.name);
        let ours = format!("planish {}, {}", self.planish, result.name);
        let Ratios { prefill_all_logits, prefill_last_logits, decode, peak_bytes } = result.ratio;
        let times = |ratio: f64| format!("{ratio:.2} ×");
        let ratio = vec![
            "ratio".to_owned(),
            times(prefill_all_logits),
            prefill_last_logits.map_or_else(dash, times),
            times(decode),
            peak_bytes.map_or_else(dash, times),
        ];
        [cells(rival, &result.rival), cells(ours, &result.ours), ratio]
    }
}

fn cells(name: String, figures: &Figures) -> Vec<String> {
    let speed = |speed: f64| format!("{speed:.1}");
    let last = figures.prefill_last_logits.map_or_else(dash, speed);
    let memory = figures.peak_bytes.map_or_else(dash, megabytes);
    vec![name, speed(figures.prefill_all_logits), last, speed(figures.decode), memory]
}

fn dash() -> String {
    "–".into()
}

impl Result {
    fn new(comparison: &Comparison) -> Self {
        let (rival, ours) = (medians(&comparison.rival), medians(&comparison.ours));
        let bytes = ours.peak_bytes.zip(rival.peak_bytes);
        let ratio = Ratios {
            prefill_all_logits: ours.prefill_all_logits / rival.prefill_all_logits,
            prefill_last_logits: ours.prefill_last_logits.map(|s| s / rival.prefill_all_logits),
            decode: ours.decode / rival.decode,
            peak_bytes: bytes.map(|(ours, rival)| ours as f64 / rival as f64),
        };
        let Comparison { name, rival_model, our_model, .. } = *comparison;
        Self { name, rival_model, our_model, rival, ours, ratio }
    }
}

/// The median of every figure.
fn medians(rounds: &[Figures]) -> Figures {
    let of =
        |figure: fn(&Figures) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
    Figures {
        prefill_all_logits: of(|f| Some(f.prefill_all_logits)).unwrap_or(f64::NAN),
        prefill_last_logits: of(|f| f.prefill_last_logits),
        decode: of(|f| Some(f.decode)).unwrap_or(f64::NAN),
        peak_bytes: of(|f| f.peak_bytes.map(|bytes| bytes as f64)).map(|bytes| bytes as u64),
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(speed: f64, last: Option<f64>) -> Figures {
        let (prefill_all_logits, decode) = (speed, speed / 10.0);
        let peak_bytes = Some(1_000_000 * speed as u64);
        Figures { prefill_all_logits, prefill_last_logits: last, decode, peak_bytes }
    }

    fn report() -> Report {
        let mut comparison = Comparison::new("f32", "one export", "the same");
        comparison.rival = [100.0, 400.0, 200.0].map(|speed| figures(speed, None)).into();
        comparison.ours =
            [300.0, 250.0, 500.0].map(|speed| figures(speed, Some(speed * 2.0))).into();
        let instruction_sets = vec!["avx2"];
        let machine =
            Machine { cpu: "some CPU".into(), instruction_sets, cores: 4, load: Some(0.25) };
        Report::new(machine, "1.2.3".into(), 2, &[comparison])
    }

    #[test]
    fn the_middle_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn medians_are_divided_by_the_rivals() {
        let report = report();
        let ratio = &report.comparisons[0].ratio;
        assert_eq!((ratio.prefill_all_logits, ratio.prefill_last_logits), (1.5, Some(3.0)));
        assert_eq!((ratio.decode, ratio.peak_bytes, report.rounds), (1.5, Some(1.5), 3));
    }

    #[test]
    fn the_table_says_what_was_measured_on_what() {
        let text = report().markdown();
        for part in [
            "| ONNX Runtime 1.2.3, f32 |               200.0 |                    – |",
            "| ratio                   |              1.50 × |               3.00 × |   1.50 × |",
            "- f32: ONNX Runtime runs one export; planish runs the same.",
            "- some CPU, 4 cores, avx2, load 0.2 before",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }

    #[test]
    fn json_has_every_figure() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["comparisons"][0]["ours"]["prefill_last_logits"], 600.0);
        assert_eq!(json["machine"]["cpu"], "some CPU");
    }
}
