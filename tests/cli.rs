//! The command line as a user meets it: help, usage errors, bad input, exit codes.
#[path = "common/words.rs"]
mod words;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use planish_runtime::npz::{NpyArray, read_npz, write_npz};
use words::tokenizer;

const SUBCOMMANDS: [&str; 8] =
    ["quantize", "run", "eval", "bench", "forward", "compare", "inspect", "report"];

fn planish(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_planish")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must fail with `code`; returns what it says.
fn failure(code: i32, args: &[&str]) -> String {
    let output = planish(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
    assert!(output.stdout.is_empty(), "{args:?} printed to stdout");
    message
}

/// Runs a command whose input is bad; returns its one line.
fn bad_input(args: &[&str]) -> String {
    let message = failure(1, args);
    assert!(message.starts_with("error: "), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// A folder with a graph whose tokenizer lies one folder up.
fn model() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2/optimum");
    folder.to_string_lossy().into_owned()
}

/// The folder of a tiny model.
fn tiny(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny").join(name);
    folder.to_string_lossy().into_owned()
}

/// A text file in a folder of its own.
fn file(text: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("text.txt");
    std::fs::write(&path, text).unwrap();
    (folder, path.to_string_lossy().into_owned())
}

#[test]
fn every_subcommand_has_help_with_examples() {
    for subcommand in SUBCOMMANDS {
        let output = planish(&[subcommand, "--help"]);
        assert!(output.status.success(), "{subcommand}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("  planish {subcommand} ")), "{help}");
        for option in ["--threads", "--device", "--verbose"] {
            assert!(help.contains(option), "{subcommand} lacks {option}");
        }
    }
}

#[test]
fn the_main_help_lists_the_subcommands_and_exit_codes() {
    let help = String::from_utf8(planish(&["--help"]).stdout).unwrap();
    assert!(
        SUBCOMMANDS.iter().all(|subcommand| help.contains(&format!("  {subcommand} "))),
        "{help}"
    );
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn the_version_is_printed() {
    let output = planish(&["--version"]);
    let version = String::from_utf8(output.stdout).unwrap();
    assert_eq!(version, concat!("planish ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_report_needs_a_folder_that_quantize_wrote() {
    let message = bad_input(&["report", &model()]);
    assert!(message.contains("optimum/planish.json, which planish quantize writes"), "{message}");
}

#[test]
fn wrong_usage_ends_with_2() {
    failure(2, &[]);
    failure(2, &["fly"]);
    assert!(failure(2, &["run", "dir"]).contains("--prompt"));
    assert!(failure(2, &["quantize", "m.onnx"]).contains("--output"));
    assert!(failure(2, &["inspect", "m.onnx", "--colour"]).contains("--colour"));
    assert!(failure(2, &["bench", "dir", "--threads", "0"]).contains("--threads"));
    assert!(failure(2, &["bench", "dir", "--decode", "0"]).contains("--decode"));
    assert!(failure(2, &["bench", "dir", "--device", "tpu"]).contains("cuda"));
}

#[test]
fn bad_widths_are_explained() {
    let quantize =
        |option: &str, value: &str| failure(2, &["quantize", "m.onnx", "-o", "out", option, value]);
    assert!(quantize("--bits", "w4kv4").contains("lacks the part \"a\""));
    assert!(quantize("--bits", "w4a3kv4").contains("only 4, 8 and 16 exist"));
    assert!(quantize("--lm-head-bits", "5").contains("8, 16, 4"));
    assert!(quantize("--group-size", "0").contains("--group-size"));
    assert!(quantize("--method", "magic").contains("smoothquant"));
}

#[test]
fn missing_files_are_named() {
    let missing = |args: &[&str]| {
        let message = bad_input(args);
        assert!(message.contains("cannot read no/such"), "{message}");
        assert!(message.contains("No such file"), "{message}");
    };
    let (model, (_folder, text)) = (model(), file(b"some text"));
    missing(&["inspect", "no/such.onnx"]);
    missing(&["quantize", "no/such.onnx", "-o", "out"]);
    missing(&["quantize", &model, "-o", "out", "--calibration", "no/such.txt"]);
    missing(&["run", "no/such", "--prompt", "x"]);
    missing(&["bench", "no/such"]);
    missing(&["eval", "no/such", "--text", &text]);
    missing(&["eval", &model, "--text", "no/such.txt"]);
    missing(&["compare", "no/such", &model, "--text", &text]);
    missing(&["compare", &model, "no/such", "--text", &text]);
    missing(&["forward", "no/such.onnx", "--inputs", "in.npz", "--outputs", "out.npz"]);
    missing(&["forward", &model, "--inputs", "no/such.npz", "--outputs", "out.npz"]);
}

#[test]
fn texts_that_are_too_short_say_what_is_needed() {
    let model = model();
    let (_folder, blank) = file(b" \n\n");
    assert!(bad_input(&["eval", &model, "--text", &blank]).contains("the text is empty"));
    let (_folder, short) = file(b"one two three four");
    let message = bad_input(&["eval", &model, "--text", &short]);
    assert!(message.contains("the text has 4 tokens, but one window needs 2048"), "{message}");
    let zero = bad_input(&["eval", &model, "--text", &short, "--context", "2", "--windows", "0"]);
    assert!(zero.contains("number of windows is 0"), "{zero}");
    let one = bad_input(&["compare", &model, &model, "--text", &short, "--context", "1"]);
    assert!(one.contains("at least 2 tokens"), "{one}");
}

#[test]
fn files_of_the_wrong_kind_are_named() {
    let model = model();
    let (folder, binary) = file(&[0xff, 0xfe, 0x00]);
    let message = bad_input(&["eval", &model, "--text", &binary]);
    assert!(message.contains("text.txt") && message.contains("UTF-8"), "{message}");
    let out = folder.path().join("out.npz").to_string_lossy().into_owned();
    let message = bad_input(&["forward", &model, "--inputs", &binary, "--outputs", &out]);
    assert!(message.contains("no intact .npz archive"), "{message}");
    let folder = folder.path().to_string_lossy();
    let message = bad_input(&["run", &folder, "--prompt", "x"]);
    assert!(message.contains("there is no tokenizer.json in"), "{message}");
}

#[test]
fn a_mask_and_positions_that_a_graph_has_no_inputs_for_are_left_out() {
    let root = tempfile::tempdir().unwrap();
    let model = tiny("gemma2-optimum");
    let path = |name: &str| root.path().join(name).to_string_lossy().into_owned();
    let array = |name: &str, row: &[i64]| (name.to_owned(), NpyArray::from_i64(&[1, 3], row));
    let (ids, mask) = (array("input_ids", &[5, 6, 7]), array("attention_mask", &[1; 3]));
    let forward = |name: &str, arrays: &[(String, NpyArray)]| {
        let (input, output) = (path(&format!("{name}.in.npz")), path(&format!("{name}.npz")));
        write_npz(input.as_ref(), arrays).unwrap();
        let options = ["--inputs", &input, "--outputs", &output, "--device", "cpu"];
        let output = planish(&[&["forward", &model], &options[..]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        (stderr(&output), read_npz(path(&format!("{name}.npz")).as_ref()).unwrap())
    };
    let (silence, expected) = forward("plain", &[ids.clone(), mask.clone()]);
    let (note, found) = forward("more", &[ids, mask, array("position_ids", &[0, 1, 2])]);
    assert_eq!(silence, "");
    assert_eq!(note, "warn: \"position_ids\" is not an input of this graph, left out\n");
    assert_eq!(found, expected);
}

#[test]
fn of_a_decoder_in_two_files_the_one_with_a_cache_generates() {
    let forms =
        [("decode.onnx", "prefill.onnx"), ("decoder_with_past_model.onnx", "decoder_model.onnx")];
    let original = Path::new(&tiny("llama-optimum")).join("model.onnx");
    // Of another vocabulary, so that it is told at once.
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/forms/nocache/model.onnx");
    for (with_cache, without) in forms {
        let root = tempfile::tempdir().unwrap();
        let (path, folder) = (|name: &str| root.path().join(name), root.path().to_string_lossy());
        let options = ["--prompt", "w5 w6 w7", "--max-new-tokens", "12", "--device", "cpu"];
        let run = [&["run", &*folder], &options[..]].concat();
        let text = || {
            let output = planish(&run);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text.split_whitespace().count(), 12, "{text}{}", stderr(&output));
            assert!(!stderr(&output).contains("no KV cache"), "{}", stderr(&output));
            text
        };
        std::fs::write(path("tokenizer.json"), tokenizer(512)).unwrap();
        std::fs::copy(&original, path("model.onnx")).unwrap();
        let expected = text();
        std::fs::rename(path("model.onnx"), path(with_cache)).unwrap();
        std::fs::copy(&other, path(without)).unwrap();
        assert_eq!(text(), expected);
        let report = planish(&["inspect", &folder]);
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(report.lines().next().unwrap().ends_with(with_cache), "{report}");
        std::fs::remove_file(path(with_cache)).unwrap();
        assert!(failure(1, &run).contains("vocabulary has 128 tokens"));
    }
}

#[test]
fn sampling_options_are_checked_before_the_model_is_loaded() {
    let model = model();
    let message = bad_input(&["run", &model, "--prompt", "x", "--temperature=-1"]);
    assert!(message.contains("the temperature is -1"), "{message}");
    let message = bad_input(&["run", &model, "--prompt", "x", "--top-p", "0"]);
    assert!(message.contains("top-p is 0"), "{message}");
}
