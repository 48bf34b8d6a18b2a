//! Methods that learn: requests that can't be met, and what runs that were stopped leave.
use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Bench, words};

/// Learns for a moment.
const LEARN: &str = "quantize m -o out --method flatquant --calibration text.txt";
const TINY: &str = "--recipe windows=4,length=16,batch=2,steps=2,last-batch=2,last-steps=1";

#[test]
fn recipes_that_are_not_understood() {
    let bench = Bench::new();
    for (recipe, parts) in [
        ("speed=1", ["a recipe has no speed", "it has windows="]),
        ("steps=-1", ["\"-1\" is no value for steps", ""]),
        ("steps=1e3", ["\"1e3\" is no value for steps", ""]),
        ("batch=0", ["\"0\" is no value for batch", ""]),
        ("steps=", ["\"\" is no value for steps", ""]),
        ("matrix-rate=NaN", ["\"NaN\" is no value for matrix-rate", ""]),
        ("clip-rate=-0.1", ["\"-0.1\" is no value for clip-rate", ""]),
        ("input=both", ["\"both\" is no value for input", ""]),
        ("windows=3", ["batch of 4", "takes 0 windows"]),
        ("last-batch=1000", ["batch of 1000", "takes 192 windows"]),
    ] {
        bench.refuses(&format!("{LEARN} --recipe {recipe}"), &parts);
    }
    for recipe in ["steps", "", "steps=2,,"] {
        let output = bench.command(&format!("{LEARN} --recipe")).arg(recipe).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{recipe:?}: {message}");
        assert!(message.contains("NAME=VALUE"), "{message}");
    }
}

#[test]
fn what_only_methods_that_learn_take() {
    let bench = Bench::new();
    for method in ["rtn", "hadamard", "orthogonal", "smoothquant --calibration text.txt"] {
        for option in ["--rounding gptq", "--recipe steps=3"] {
            let line = format!("quantize m -o out --method {method} {option}");
            let name = option.split(' ').next().unwrap();
            bench.refuses(&line, &[name, "needs a method that learns", "flatquant"]);
        }
    }
}

#[test]
fn texts_that_can_not_be_learned_from() {
    let bench = Bench::new();
    for method in ["flatquant", "affinequant"] {
        let line = format!("quantize m -o out --method {method} {TINY} --calibration");
        bench.refuses(&format!("{line} none.txt"), &["none.txt"]);
        bench.write("short.txt", words(31));
        let parts = ["text has 31 tokens", "2 windows of 16"];
        bench.refuses(&format!("{line} short.txt"), &parts);
        bench.write("short.txt", "");
        bench.refuses(&format!("{line} short.txt"), &["text has 0 tokens"]);
    }
}

#[test]
fn windows_longer_than_the_model_takes() {
    let bench = Bench::with_model("gpt2-optimum");
    let recipe = "windows=2,length=800,batch=2,steps=1,last-steps=0";
    for text in ["text.txt", "self"] {
        let line = format!("quantize m -o out --method flatquant --calibration {text}");
        bench.refuses(&format!("{line} --recipe {recipe}"), &["the model takes", "800"]);
    }
}

#[test]
fn group_sizes_that_do_not_fit() {
    let bench = Bench::new();
    let parts = ["group size", "48", "64 input channels"];
    bench.refuses(&format!("{LEARN} {TINY} --group-size 48"), &parts);
    bench.succeeds(&format!("{LEARN} {TINY} --group-size 16"));
}

/// The folder that finished blocks are kept in.
const STORE: &str = ".out.calibration";

#[test]
fn a_run_that_was_killed_is_taken_up_with_its_own_options_only() {
    let bench = Bench::new();
    let line = format!("{LEARN} --recipe windows=4,length=16,batch=2,last-steps=0,steps=");
    let steps = 400;
    let mut child = bench.command(&format!("{line}{steps}")).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let first = bench.path(STORE).join("block_0000.npz");
    while !first.exists() {
        assert!(Instant::now() < deadline, "no block was finished");
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!bench.path("out").exists());
    // The next run would remove it; then the folder would not stay as it is.
    fs::remove_dir_all(bench.path(&format!(".out.{}.partial", child.id()))).unwrap();
    let other = [STORE, "other options or another model", "remove it"];
    bench.refuses(&format!("{line}2"), &other);
    bench.refuses(&format!("{line}{steps} --seed 1"), &other);
    bench.refuses(&format!("{line}{steps} --bits w4a8kv8"), &other);
    let written = || fs::metadata(&first).unwrap().modified().unwrap();
    let before = written();
    bench.write(&format!("{STORE}/block_0001.npz"), "nonsense");
    bench.refuses(&format!("{line}{steps}"), &["block_0001.npz"]);
    fs::remove_file(bench.path(STORE).join("block_0001.npz")).unwrap();
    assert_eq!(before, written());
    bench.succeeds(&format!("{line}{steps}"));
    assert!(!bench.path(STORE).exists());
}
