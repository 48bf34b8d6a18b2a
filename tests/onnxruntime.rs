//! Emitted models in stock ONNX Runtime, with nothing but the file: the same codes, logits and
//! continuations as in our engine.

mod common;

use std::path::{Path, PathBuf};

use common::{RECIPES, Recipe, difference, find, python, smollm2, tokens};
use planish::app::{Method, OpenOptions, forward, open_model};
use planish_models::tiny_models;
use planish_runtime::npz::{NpyArray, NpyType, read_npz, write_npz};
use planish_runtime::text::TextTokenizer;
use planish_runtime::{LanguageModel, Logits};

type Arrays = Vec<(String, NpyArray)>;

/// How codes in our engine compare with ONNX Runtime's.
#[derive(Debug, Default)]
struct Codes {
    n: usize,
    differing: usize,
    largest_step: i32,
}

impl Codes {
    /// Compares all INT8 arrays, of which there must be the same.
    fn compare(ours: &Arrays, theirs: &Arrays) -> Self {
        let mut codes = Self::default();
        for (name, expected) in theirs.iter().filter(|(_, array)| array.dtype == NpyType::I8) {
            let actual = find(ours, name);
            assert_eq!((actual.dtype, &actual.shape), (NpyType::I8, &expected.shape), "{name}");
            for (a, b) in actual.bytes.iter().zip(&expected.bytes) {
                let step = (i32::from(*a as i8) - i32::from(*b as i8)).abs();
                codes.n += 1;
                codes.differing += usize::from(step > 0);
                codes.largest_step = codes.largest_step.max(step);
            }
        }
        codes
    }
}

/// Largest relative difference of all float arrays.
fn floats(ours: &Arrays, theirs: &Arrays) -> f32 {
    let floats = theirs.iter().filter(|(_, array)| array.dtype == NpyType::F32);
    let differences = floats.map(|(name, expected)| {
        let d = difference(&find(ours, name).to_f32().unwrap(), &expected.to_f32().unwrap());
        if d > 1e-4 {
            println!("   {name} {d}");
        }
        d
    });
    differences.fold(0.0, f32::max)
}

fn npz(folder: &Path, name: &str) -> Arrays {
    read_npz(&folder.join(name)).unwrap()
}

fn check_folder(name: &str, folder: &Path) {
    let mut decoder = open_model(folder, &OpenOptions::default()).unwrap();
    for run in ["prefill", "step"] {
        let (inputs, theirs) =
            (npz(folder, &format!("{run}.in.npz")), npz(folder, &format!("{run}.out.npz")));
        let ours =
            forward(&folder.join("exposed.onnx"), inputs.clone(), &OpenOptions::default()).unwrap();
        let mut given = inputs.clone();
        let f = planish_onnx::read_model(&folder.join("forced.onnx")).unwrap();
        for (name, array) in &theirs {
            let g = format!("{name}/given");
            if f.graph.find_value(&g).is_some() {
                given.push((g, array.clone()));
            }
        }
        let forced = forward(&folder.join("forced.onnx"), given, &OpenOptions::default()).unwrap();
        let ids = tokens(find(&inputs, "input_ids"));
        let logits = decoder.forward(&ids, Logits::All).unwrap();
        println!(
            "{name} {run}: {:?} floats {}",
            Codes::compare(&ours, &theirs),
            floats(&ours, &theirs)
        );
        println!(
            "{name} {run} forced: {:?} floats {}",
            Codes::compare(&forced, &theirs),
            floats(&forced, &theirs)
        );
        println!(
            "{name} {run} lowered: {}",
            difference(&logits.data, &find(&theirs, "logits").to_f32().unwrap())
        );
    }
}

#[test]
fn tiny() {
    let root = tempfile::tempdir().unwrap();
    let mut folders: Vec<(String, PathBuf)> = Vec::new();
    for tiny in tiny_models() {
        for recipe in RECIPES {
            let name = format!("{}-{}", tiny.name, recipe.bits);
            let folder = root.path().join(&name);
            recipe.quantize(&tiny.dir, &folder);
            let expected = read_npz(&tiny.dir.join("expected.npz")).unwrap();
            let ids = ["ids", "step_ids"].map(|n| (n.to_owned(), find(&expected, n).clone()));
            write_npz(&folder.join("ids.npz"), &ids).unwrap();
            folders.push((name, folder));
        }
    }
    let arguments: Vec<String> = folders.iter().map(|(_, f)| f.display().to_string()).collect();
    python("codes.py", &arguments);
    for (name, folder) in &folders {
        check_folder(name, folder);
    }
}

fn argmax(row: &[f32]) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut second = f32::NEG_INFINITY;
    for (i, x) in row.iter().enumerate() {
        if *x > best.1 {
            second = best.1;
            best = (i as u32, *x);
        } else {
            second = second.max(*x);
        }
    }
    (best.0, best.1 - second)
}

fn greedy(model: &mut dyn LanguageModel, prompt: &[u32], n: usize) -> Vec<(u32, f32)> {
    model.reset();
    let mut next = prompt.to_vec();
    (0..n)
        .map(|_| {
            let logits = model.forward(&next, Logits::Last).unwrap();
            let found = argmax(&logits.data);
            next = vec![found.0];
            found
        })
        .collect()
}

#[test]
fn smol() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("w4a4kv4");
    Recipe::new(Method::Hadamard, std::env::var("BITS").map_or("w4a4kv4", |b| b.leak()))
        .quantize(&smollm2(), &folder);
    let tokenizer = TextTokenizer::load(&folder).unwrap();
    let prompts = std::fs::read_to_string(std::env::var("PROMPTS").unwrap()).unwrap();
    let prompts: Vec<Vec<u32>> = prompts
        .lines()
        .map(|p| tokenizer.encode(&p.replace("\\n", "\n"), false).unwrap())
        .collect();
    let text = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let ids: Vec<i64> = prompts[0].iter().map(|i| i64::from(*i)).collect();
    println!("prompt of {} tokens", ids.len());
    let arrays = [
        ("ids".to_owned(), NpyArray::from_i64(&[1, ids.len()], &ids)),
        ("step_ids".to_owned(), NpyArray::from_i64(&[1, 1], &[100])),
    ];
    write_npz(&folder.join("ids.npz"), &arrays).unwrap();
    python("codes.py", &[folder.display().to_string()]);
    check_folder("smollm2", &folder);
    let mut args = vec![folder.join("model.onnx").display().to_string(), "32".into()];
    args.extend(prompts.iter().map(|p| text(p)));
    let theirs = python("greedy.py", &args);
    let mut model = open_model(&folder, &OpenOptions::default()).unwrap();
    for (prompt, line) in prompts.iter().zip(theirs.lines()) {
        let ours = greedy(model.as_mut(), prompt, 32);
        let theirs: Vec<u32> = line.split(',').map(|t| t.parse().unwrap()).collect();
        let same = ours.iter().zip(&theirs).take_while(|(a, b)| a.0 == **b).count();
        let margin = ours[..same].iter().fold(f32::MAX, |m, a| m.min(a.1));
        let o: Vec<u32> = ours.iter().map(|o| o.0).collect();
        println!(
            "{} tokens, same {same}, smallest margin {margin}, next {:?} {:?}\n  {:?}\n  {:?}",
            prompt.len(),
            ours.get(same),
            theirs.get(same),
            tokenizer.decode(&o).unwrap(),
            tokenizer.decode(&theirs).unwrap()
        );
    }
}
