//! What good input gives: a folder that every command can use, and quiet on stderr.
use std::fs;

use crate::support::{Bench, VOCAB, tokenizer};

/// The numbers of a line of JSON, all of which must be there.
fn numbers(json: &str, fields: &[&str]) -> Vec<f64> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let number = |field: &&str| value[*field].as_f64().unwrap_or_else(|| panic!("{field}: {json}"));
    fields.iter().map(number).collect()
}

fn check_commands(bench: &Bench) {
    bench.succeeds("run out --prompt w1 --max-new-tokens 3");
    let json = bench.succeeds("eval out --text text.txt --windows 1 --context 32 --json");
    let found = numbers(&json, &["perplexity", "n_tokens", "context"]);
    assert!(found[0] > 1.0 && found[0] < 4.0 * VOCAB as f64, "{json}");
    assert_eq!(found[1..], [2000.0, 32.0]);
    let json = bench.succeeds("bench out --prefill 8 --decode 2 --json");
    let fields = ["prefill_tokens_per_s", "decode_tokens_per_s", "peak_rss_bytes"];
    assert!(numbers(&json, &fields).iter().all(|x| *x > 0.0), "{json}");
    let json = bench.succeeds("compare m out --text text.txt --windows 1 --context 32 --json");
    let found = numbers(&json, &["mean_kl", "top1_agreement", "max_abs_logit_diff"]);
    assert!(found[0] > 0.0 && found[0] < 1.0, "{json}");
    let json = bench.succeeds("inspect out --json");
    assert!(numbers(&json, &["parameters", "weight_bytes"]).iter().all(|x| *x > 0.0), "{json}");
    bench.succeeds("inspect out");
}

#[test]
fn every_command_takes_a_quantised_model() {
    for model in ["llama-optimum", "llama-dynamo23", "qwen2-genai", "gpt2-optimum"] {
        let bench = Bench::with_model(model);
        bench.succeeds("quantize m -o out");
        check_commands(&bench);
    }
}

#[test]
fn every_method_gives_a_model_that_runs() {
    let bench = Bench::new();
    for method in ["rtn", "hadamard", "orthogonal", "smoothquant --calibration text.txt"] {
        bench.succeeds(&format!("quantize m -o out --method {method}"));
        check_commands(&bench);
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
}

#[test]
fn companions_travel_with_the_model() {
    let bench = Bench::with_model("qwen2-genai");
    bench.write("m/config.json", "{}");
    bench.write("m/notes.txt", "not a companion");
    bench.succeeds("quantize m/model.onnx -o out");
    let names = fs::read_dir(bench.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    // genai_config.json describes the graph of before; its end of text is kept.
    let expected = [
        "config.json",
        "generation_config.json",
        "model.onnx",
        "model.onnx.data",
        "planish.json",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    let generation = fs::read_to_string(bench.path("out/generation_config.json")).unwrap();
    assert!(generation.starts_with("{\"eos_token_id\":["), "{generation}");
}

#[test]
fn companions_may_be_links_or_lie_one_folder_up() {
    let bench = Bench::new();
    let (inner, outer) = (bench.path("m/tokenizer.json"), bench.path("tokenizer.json"));
    fs::rename(&inner, &outer).unwrap();
    bench.succeeds("quantize m -o a/out");
    assert_eq!(fs::read_to_string(bench.path("a/out/tokenizer.json")).unwrap(), tokenizer(VOCAB));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../tokenizer.json", &inner).unwrap();
        bench.succeeds("quantize m -o a/linked");
        let copy = bench.path("a/linked/tokenizer.json");
        assert!(copy.symlink_metadata().unwrap().is_file());
    }
}
