//! Every canonicalising rule, as the text of a graph before and after.
//!
//! The files beside this one hold the cases (see [`case`]). For each, the graph is canonicalised
//! and compared with the text under `after`, checked to stay as it is when canonicalised again,
//! and both graphs are evaluated on the same inputs. `BLESS=1` rewrites the texts.

mod case;
mod check;
mod inputs;
mod weights;

use std::path::{Path, PathBuf};

/// Runs the cases of one file.
fn run(family: &str) {
    let path = folder().join(family).with_extension("txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut cases = case::read(&text);
    assert!(!cases.is_empty(), "{} has no cases", path.display());
    let is_blessing = std::env::var_os("BLESS").is_some();
    let mut problems = Vec::new();
    for case in &mut cases {
        match check::check(case) {
            Ok(after) if is_blessing => case.after = after,
            Ok(after) if after == case.after => {}
            Ok(after) => problems.push(format!(
                "{}: BLESS=1 would write\n{after}\nin place of\n{}",
                case.title, case.after
            )),
            Err(problem) => problems.push(format!("{}: {problem}", case.title)),
        }
    }
    if is_blessing {
        std::fs::write(&path, case::write(&text, &cases)).unwrap();
    }
    assert!(problems.is_empty(), "{family}.txt:\n{}", problems.join("\n"));
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules")
}

macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(#[test] fn $family() { run(stringify!($family)); })*
        const FAMILIES: &[&str] = &[$(stringify!($family)),*];
    };
}

families! {
    activations, attention, contributed, grouped_query, inlining, linears, masks, no_ops, norms,
    projections, rotary, splits, tied_weights, transforms, widening,
}

#[test]
fn every_file_of_cases_has_a_test() {
    let files = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path());
    let texts = files.filter(|p| p.extension().is_some_and(|e| e == "txt"));
    let mut names: Vec<String> =
        texts.map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, FAMILIES);
}
