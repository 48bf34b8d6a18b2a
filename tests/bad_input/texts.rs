//! Texts that are too short, and tokenizers that can't be used.
use std::fs;

use crate::support::{Bench, VOCAB, tokenizer, words};

const CALIBRATE: &str = "quantize m -o out --method smoothquant --calibration";

#[test]
fn empty_texts() {
    let bench = Bench::new();
    for contents in ["", " \n\t\n"] {
        bench.write("empty.txt", contents);
        bench.refuses("eval m --text empty.txt", &["empty.txt", "the text is empty"]);
        bench.refuses("compare m m --text empty.txt", &["empty.txt", "the text is empty"]);
        bench.refuses(&format!("{CALIBRATE} empty.txt"), &["empty.txt has 0 tokens"]);
    }
}

#[test]
fn an_empty_prompt() {
    let bench = Bench::new();
    for prompt in ["", " \n"] {
        let mut command = bench.command("run m --prompt");
        bench.refuses_command(command.arg(prompt), &["the prompt is empty"]);
    }
}

#[test]
fn texts_shorter_than_a_window() {
    let bench = Bench::new();
    bench.write("short.txt", words(99));
    let parts = ["short.txt", "99 tokens", "one window needs 100"];
    bench.refuses("eval m --text short.txt --context 100", &parts);
    bench.refuses("compare m m --text short.txt --context 100", &parts);
    bench.refuses(&format!("{CALIBRATE} short.txt"), &["short.txt has 99 tokens", "at least 512"]);
}

#[test]
fn texts_that_are_no_text() {
    let bench = Bench::new();
    bench.write("binary.txt", [0xff, 0xfe, 0x00]);
    let parts = ["cannot read binary.txt", "UTF-8"];
    bench.refuses("eval m --text binary.txt", &parts);
    bench.refuses("compare m m --text binary.txt", &parts);
    bench.refuses(&format!("{CALIBRATE} binary.txt"), &parts);
    bench.refuses("eval m --text m", &["cannot read m", "directory"]);
}

/// Every command that needs a tokenizer.
fn refused_everywhere(bench: &Bench, parts: &[&str]) {
    bench.refuses("run m --prompt w1", parts);
    bench.refuses("eval m --text text.txt --context 32", parts);
    bench.refuses("compare m m --text text.txt --context 32", parts);
    bench.refuses(&format!("{CALIBRATE} text.txt"), parts);
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model() {
    let bench = Bench::new();
    bench.write("m/tokenizer.json", tokenizer(VOCAB + 1));
    let parts = ["m/tokenizer.json", "token ids up to 512", "vocabulary has 512 tokens"];
    refused_everywhere(&bench, &parts);
}

#[test]
fn a_missing_tokenizer() {
    let bench = Bench::new();
    fs::remove_file(bench.path("m/tokenizer.json")).unwrap();
    refused_everywhere(&bench, &["there is no tokenizer.json in m"]);
}

#[test]
fn broken_tokenizers() {
    let bench = Bench::new();
    let whole = tokenizer(VOCAB);
    for contents in ["", "{}", "[1, 2", &whole[..whole.len() / 2]] {
        bench.write("m/tokenizer.json", contents);
        refused_everywhere(&bench, &["m/tokenizer.json is no usable tokenizer"]);
    }
    bench.write("m/tokenizer.json", whole);
    bench.write("m/config.json", "{");
    refused_everywhere(&bench, &["m/config.json is not valid JSON"]);
}

#[test]
fn a_chat_without_a_template() {
    let bench = Bench::new();
    bench.refuses("run m --chat --prompt w1", &["m has no chat template"]);
    bench.write("m/chat_template.jinja", "{% for %}");
    bench.refuses("run m --chat --prompt w1", &["the chat template of m fails"]);
}
