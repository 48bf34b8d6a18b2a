//! Output folders that can't be written, and runs that do not come to their end.
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use planish_runtime::npz::{NpyArray, write_npz};

use crate::support::Bench;

#[test]
fn outputs_that_exist() {
    let bench = Bench::new();
    fs::create_dir(bench.path("empty")).unwrap();
    for output in ["m", "empty", "text.txt", "m/", "empty/", "text.txt/", ".", "./m/../empty"] {
        let line = format!("quantize m -o {output}");
        bench.refuses(&line, &[output.trim_end_matches('/'), "exists already"]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", bench.path("link")).unwrap();
        bench.refuses("quantize m -o link", &["link exists already"]);
    }
}

#[test]
fn outputs_that_have_no_place() {
    let bench = Bench::new();
    for output in ["text.txt/out", "text.txt/deep/out"] {
        bench.refuses(&format!("quantize m -o {output}"), &["cannot write", output]);
    }
    bench.refuses("quantize m -o new/..", &["new/.. can't be an output folder"]);
}

#[test]
fn folders_above_the_output_do_not_outlive_a_failure() {
    let bench = Bench::new();
    bench.refuses("quantize m -o a/b/out --group-size 48", &["group size"]);
    bench.succeeds("quantize m -o a/b/out");
    bench.succeeds("quantize m -o m/inside/");
    assert!(bench.path("a/b/out/model.onnx").is_file());
    assert!(bench.path("m/inside/model.onnx").is_file());
}

#[test]
fn a_quantised_model_is_not_quantised_again() {
    let bench = Bench::new();
    bench.succeeds("quantize m -o out");
    bench.refuses("quantize out -o again", &["out/model.onnx is quantised already"]);
    bench.refuses("quantize out/model.onnx -o again", &["out/model.onnx is quantised already"]);
}

#[cfg(unix)]
fn on_a_small_disk(bench: &Bench, line: &str) -> Command {
    on_a_disk_of(bench, 64, line)
}

/// A command under a limit for the size of files, in blocks of 512 or 1024 bytes.
#[cfg(unix)]
fn on_a_disk_of(bench: &Bench, blocks: usize, line: &str) -> Command {
    let mut command = Command::new("sh");
    let program = bench.command(line);
    command.arg("-c").arg(format!("ulimit -f {blocks}; exec \"$0\" \"$@\""));
    command.arg(program.get_program()).args(program.get_args());
    command.current_dir(bench.path("."));
    command
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing() {
    let bench = Bench::new();
    let mut quantize = on_a_small_disk(&bench, "quantize m -o out");
    bench.refuses_command(&mut quantize, &["model.onnx", "File too large"]);

    let ids = ("input_ids".to_owned(), NpyArray::from_i64(&[1, 100], &[1; 100]));
    write_npz(&bench.path("in.npz"), &[ids]).unwrap();
    let line = "forward m --inputs in.npz --outputs out.npz";
    let mut forward = on_a_small_disk(&bench, line);
    bench.refuses_command(&mut forward, &["cannot write out.npz", "File too large"]);
    bench.succeeds(line);
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_when_the_tokenizer_is_copied_leaves_nothing() {
    let bench = Bench::new();
    let tokenizer = fs::read_to_string(bench.path("m/tokenizer.json")).unwrap();
    bench.write("m/tokenizer.json", tokenizer + &" ".repeat(8 << 20));
    let mut command = on_a_disk_of(&bench, 4096, "quantize m -o deep/out");
    let parts = ["cannot copy m/tokenizer.json to deep/.out.", "File too large"];
    bench.refuses_command(&mut command, &parts);
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_while_learning_leaves_nothing() {
    let bench = Bench::new();
    let recipe = "windows=2,length=16,batch=2,steps=1,last-steps=0";
    let line =
        format!("quantize m -o out --method flatquant --calibration text.txt --recipe {recipe}");
    let mut command = on_a_small_disk(&bench, &line);
    bench.refuses_command(&mut command, &[".out.calibration", "File too large"]);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_at_any_moment_leaves_all_or_nothing() {
    const N_MOMENTS: u32 = 12;
    let bench = Bench::new();
    let begin = Instant::now();
    bench.succeeds("quantize m -o whole");
    let time = begin.elapsed();
    let model = |folder: &str| {
        let read = |name: &str| fs::read(bench.path(folder).join(name)).unwrap();
        ["model.onnx", "model.onnx.data", "tokenizer.json"].map(read)
    };
    let whole = model("whole");
    let mut n_unfinished = 0;
    for i in 0..N_MOMENTS {
        let mut command = bench.command("quantize m -o out");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(time * i / N_MOMENTS);
        child.kill().unwrap();
        child.wait().unwrap();
        if bench.path("out").exists() {
            assert!(model("out") == whole, "killed after {i} of {N_MOMENTS} parts");
            fs::remove_dir_all(bench.path("out")).unwrap();
        } else {
            n_unfinished += 1;
        }
    }
    assert!(n_unfinished > 0, "no run was killed");
    bench.succeeds("quantize m -o out");
    assert!(model("out") == whole && partial(&bench).is_empty());
}

/// A `quantize` that has begun and waits for its calibration text, a pipe without a writer.
#[cfg(unix)]
fn unfinished(bench: &Bench) -> Child {
    let pipe = bench.path("pipe.txt");
    if !pipe.exists() {
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    }
    let line = "quantize m -o out --method smoothquant --calibration pipe.txt";
    let child = bench.command(line).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !partial(bench).iter().any(|name| name.contains(&child.id().to_string())) {
        assert!(Instant::now() < deadline, "the run did not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The folder is locked right after it is made.
    std::thread::sleep(Duration::from_millis(200));
    child
}

/// Names of unfinished output folders.
#[cfg(unix)]
fn partial(bench: &Bench) -> Vec<String> {
    let names = fs::read_dir(bench.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| name.ends_with(".partial")).collect()
}

#[cfg(unix)]
#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let bench = Bench::new();
    let mut child = unfinished(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!bench.path("out").exists());
    assert_eq!(partial(&bench).len(), 1);
    bench.succeeds("quantize m -o other");
    assert_eq!(partial(&bench).len(), 1, "not of the same output");
    bench.succeeds("quantize m -o out");
    assert!(partial(&bench).is_empty());
    bench.succeeds("run out --prompt w1 --max-new-tokens 1");
}

#[cfg(unix)]
#[test]
fn a_run_that_goes_on_is_left_alone_by_another() {
    let bench = Bench::new();
    let mut child = unfinished(&bench);
    bench.succeeds("quantize m -o out");
    assert_eq!(partial(&bench).len(), 1);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
