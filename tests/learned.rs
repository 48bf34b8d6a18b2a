//! `planish quantize` with methods that learn, on the tiny models.
#[path = "common/words.rs"]
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use planish_onnx::read_model;
use serde_json::Value;
use words::tokenizer;

const TINY: &str = "windows=4,length=16,batch=2,steps=3,last-batch=2,last-steps=2";

/// A folder with a tiny model `m` and a text.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new(name: &str) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny").join(name);
        fs::create_dir(bench.path("m")).unwrap();
        fs::copy(model.join("model.onnx"), bench.path("m/model.onnx")).unwrap();
        fs::write(bench.path("m/tokenizer.json"), tokenizer(512)).unwrap();
        let text: String = (0..300).map(|i| format!("w{} ", i * i * 7 % 512)).collect();
        fs::write(bench.path("text.txt"), text).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command that must succeed; returns what it prints.
    fn run(&self, line: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
        let output = command.args(line.split(' ')).current_dir(self.0.path()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {message}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Quantises into `output`; returns planish.json.
    fn quantize(&self, output: &str, options: &str) -> Value {
        self.run(&format!("quantize m -o {output} {options} --recipe {TINY}"));
        let names = fs::read_dir(self.path(".")).unwrap().map(|e| e.unwrap().file_name());
        let hidden: Vec<_> = names.filter(|n| n.to_string_lossy().starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?} is left");
        for file in ["model.onnx", "tokenizer.json", "planish.json"] {
            assert!(self.path(output).join(file).is_file(), "{output} lacks {file}");
        }
        let record = fs::read(self.path(output).join("planish.json")).unwrap();
        serde_json::from_slice(&record).unwrap()
    }

    /// How often each operator is in a model.
    fn operators(&self, output: &str) -> BTreeMap<String, usize> {
        let model = read_model(&self.path(output).join("model.onnx")).unwrap();
        let mut operators = BTreeMap::new();
        for id in model.graph.node_ids() {
            *operators.entry(model.graph.node(id).op_type.clone()).or_insert(0) += 1;
        }
        operators
    }

    /// The bytes of a model's files.
    fn bytes(&self, output: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(self.path(output)).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|f| f.file_name().to_string_lossy().starts_with("model.onnx"));
        files.map(|f| (f.file_name().into(), fs::read(f.path()).unwrap())).collect()
    }

    fn perplexity(&self, model: &str) -> f64 {
        let report = self.run(&format!("eval {model} --text text.txt --context 32 --json"));
        let report: Value = serde_json::from_str(&report).unwrap();
        report["perplexity"].as_f64().unwrap()
    }
}

fn losses(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Checks what planish.json says of `n_blocks` blocks that learned for three steps and of
/// `n_last` steps of the last stage.
fn check_record(record: &Value, method: &str, n_last: usize) {
    assert_eq!(record["method"], method);
    assert_eq!(record["calibration"], "text.txt");
    assert_eq!(record["effort"], "fast");
    let recipe = record["recipe"].as_str().unwrap();
    assert!(recipe.starts_with("windows=4,length=16,batch=2,steps=3,matrix-rate="), "{recipe}");
    let blocks = record["block_losses"].as_array().unwrap();
    assert_eq!(blocks.len(), 2);
    let together = losses(&record["divergences"]);
    assert_eq!(together.len(), n_last);
    for losses in blocks.iter().map(losses) {
        assert!(losses.len() == 3 && losses.iter().all(|loss| *loss > 0.0 && *loss < 1.0));
    }
    assert!(together.iter().all(|loss| *loss > 0.0 && *loss < 1.0));
}

#[test]
fn flatquant_writes_a_model_that_runs() {
    let bench = Bench::new("llama-optimum");
    let options = "--method flatquant --bits w4a4kv4 --calibration text.txt";
    let record = bench.quantize("out", options);
    check_record(&record, "flatquant", 2);
    let operators = bench.operators("out");
    assert!(operators.get("TransformQuantize") == Some(&6), "{operators:?}");
    let (before, after) = (bench.perplexity("m"), bench.perplexity("out"));
    assert!((after / before - 1.0).abs() < 0.2, "{before} {after}");
    bench.run("run out --prompt w1 --max-new-tokens 3");
    bench.quantize("again", options);
    assert!(bench.bytes("out") == bench.bytes("again"), "the same request gives the same model");
}

#[test]
fn affinequant_leaves_no_node_behind() {
    // The norms and layers of the second take shifts in.
    for name in ["qwen2-optimum", "gpt2-optimum"] {
        let bench = Bench::new(name);
        let options = "--method affinequant --bits w4a4 --calibration text.txt";
        check_record(&bench.quantize("out", options), "affinequant", 2);
        let operators = bench.operators("out");
        assert!(operators.contains_key("DynamicQuantize"), "{name}: {operators:?}");
        assert!(!operators.keys().any(|op| op.contains("Transform")), "{name}: {operators:?}");
        let (before, after) = (bench.perplexity("m"), bench.perplexity("out"));
        assert!((after / before - 1.0).abs() < 0.2, "{name}: {before} {after}");
    }
}

#[test]
fn onnx_runtimes_form_has_one_product_for_a_transform() {
    let bench = Bench::new("llama-optimum");
    let options = "--bits w8a16 --format matmulnbits --calibration text.txt";
    bench.quantize("merged", &format!("--method affinequant {options}"));
    bench.quantize("blocks", &format!("--method flatquant {options}"));
    let (merged, blocks) = (bench.operators("merged"), bench.operators("blocks"));
    let more = |op: &str| blocks.get(op).unwrap_or(&0) - merged.get(op).unwrap_or(&0);
    // Before queries, keys and values, before gate and up, and before down, in each of two blocks.
    assert_eq!((more("MatMul"), more("Reshape"), more("MatMulNBits")), (6, 12, 0));
    let (before, after) = (bench.perplexity("m"), bench.perplexity("blocks"));
    assert!((after / before - 1.0).abs() < 0.05, "{before} {after}");
}

#[test]
fn weights_are_rounded_by_gptq() {
    let bench = Bench::new("llama-optimum");
    let line = "--method flatquant --bits w3a16kv16 --calibration text.txt";
    let record = bench.quantize("gptq", &format!("{line} --rounding gptq"));
    assert_eq!(record["rounding"], "gptq");
    bench.quantize("nearest", line);
    assert!(bench.bytes("gptq") != bench.bytes("nearest"));
    let (before, after) = (bench.perplexity("m"), bench.perplexity("gptq"));
    assert!((after / before - 1.0).abs() < 0.2, "{before} {after}");
}

#[test]
fn the_model_can_write_its_own_text() {
    let bench = Bench::new("gpt2-optimum");
    // It is what methods that learn do without a text.
    for (output, text) in [("given", " --calibration self"), ("default", "")] {
        let record = bench.quantize(output, &format!("--method flatquant{text}"));
        let said = if text.is_empty() { Value::Null } else { "self".into() };
        assert_eq!(record["calibration"], said);
        assert_eq!(record["block_losses"].as_array().unwrap().len(), 2);
    }
    assert!(bench.bytes("given") == bench.bytes("default"));
}
