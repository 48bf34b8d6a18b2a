//! Options that do not fit the model or the machine.
use crate::support::Bench;

#[test]
fn a_group_size_that_does_not_divide_the_channels() {
    let bench = Bench::new();
    let parts = ["group size of 48 does not divide the 64 input channels", "q_proj"];
    bench.refuses("quantize m -o out --group-size 48", &parts);
}

#[test]
fn smoothquant_without_a_text() {
    let bench = Bench::new();
    let parts = ["smoothquant needs a text", "--calibration"];
    bench.refuses("quantize m -o out --method smoothquant", &parts);
}

#[test]
fn a_text_that_the_method_does_not_need_is_said_to_be_unused() {
    let bench = Bench::new();
    let notes = |line: &str| {
        let output = bench.command(line).output().unwrap();
        assert!(output.status.success(), "{line}");
        let text = std::fs::read_to_string(bench.path("out/planish.json")).unwrap();
        std::fs::remove_dir_all(bench.path("out")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        (String::from_utf8(output.stderr).unwrap(), record["calibration"].clone())
    };
    for method in ["rtn", "hadamard", "orthogonal"] {
        let line = format!("quantize m -o out --method {method} --calibration text.txt");
        let (stderr, calibration) = notes(&line);
        let note = format!("the method {method} needs no calibration: text.txt was not used");
        assert!(stderr.contains(&note), "{stderr}");
        assert!(calibration.is_null(), "{calibration}");
    }
    let (stderr, calibration) =
        notes("quantize m -o out --method smoothquant --calibration text.txt");
    assert!(!stderr.contains("not used"), "{stderr}");
    assert_eq!(calibration, "text.txt");
}

#[test]
fn wrong_widths_are_wrong_usage() {
    let bench = Bench::new();
    let before = bench.list();
    for bits in ["", "4", "w4", "w5a4", "w4a4kv5", "w99a4kv4", "kv4a4w4", "w4a4kv4x"] {
        let output = bench.command("quantize m -o out --bits").arg(bits).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{bits:?}: {message}");
        assert!(message.contains("--bits") && !message.contains("panicked"), "{message}");
    }
    assert_eq!(before, bench.list());
}

#[test]
fn head_widths_that_a_tied_head_can_not_have() {
    let bench = Bench::with_model("qwen2-optimum");
    let parts = ["m/model.onnx", "4 bits", "tied to the embedding"];
    bench.refuses("quantize m -o out --lm-head-bits 4", &parts);
}

#[test]
fn cuda_where_there_is_none() {
    let bench = Bench::new();
    for line in [
        "quantize m -o out",
        "run m --prompt w1",
        "eval m --text text.txt --context 32",
        "bench m --prefill 2 --decode 1",
        "compare m m --text text.txt --context 32",
        "forward m --inputs m/expected.npz --outputs out.npz",
    ] {
        // An empty list hides the GPUs of a machine that has some.
        let mut command = bench.command(&format!("{line} --device cuda"));
        bench.refuses_command(command.env("CUDA_VISIBLE_DEVICES", ""), &["CUDA", "--device"]);
    }
}

#[test]
fn more_tokens_than_the_model_takes() {
    let bench = Bench::with_model("gpt2-optimum");
    let parts = ["the model takes", "tokens, but"];
    bench.refuses("bench m --prefill 5000 --decode 1", &parts);
    bench.refuses("eval m --text text.txt --context 1999", &parts);
}
