//! No damage to a model makes planish panic: models changed at random are refused, or are another
//! model. `fuzz/` does the same for as long as one likes, guided by coverage; what it found lies
//! in `found/`.

#[path = "../rules/case.rs"]
#[allow(dead_code)]
mod case;
mod examine;
mod mutate;
mod seeds;
#[path = "../rules/weights.rs"]
mod weights;

use std::path::Path;

use bytes::Bytes;
use examine::{Reached, examine};
use mutate::{Random, mutate};
use prost::Message;

/// Changed models made of each seed.
const N_MUTANTS: u64 = 12;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    seeds::write_weights(folder.path());
    folder
}

#[test]
fn seeds_have_a_canonical_form() {
    let folder = folder();
    for (name, model) in seeds::seeds() {
        let reached = examine(model.encode_to_vec().into(), folder.path());
        assert_eq!(reached, Reached::Canonical, "{name}");
    }
}

#[test]
fn changed_models_are_refused_or_another_model() {
    let folder = folder();
    let mut counts = [0; 3];
    for (i, (_, seed)) in seeds::seeds().into_iter().enumerate() {
        for j in 0..N_MUTANTS {
            let mut model = seed.clone();
            mutate(&mut model, &mut Random::new(N_MUTANTS * i as u64 + j));
            let reached = examine(model.encode_to_vec().into(), folder.path());
            counts[reached as usize] += 1;
        }
    }
    // Each step has something to refuse, and something to go on with.
    assert!(counts.iter().all(|n| *n > 100), "{counts:?}");
}

#[test]
fn what_fuzzing_found_is_refused_or_another_model() {
    let folder = folder();
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/damaged/found");
    let files = std::fs::read_dir(found).unwrap().map(|entry| entry.unwrap().path());
    let mut n = 0;
    for path in files.filter(|path| path.extension().is_some_and(|e| e == "onnx")) {
        println!("{}", path.display());
        examine(Bytes::from(std::fs::read(path).unwrap()), folder.path());
        n += 1;
    }
    assert!(n > 0, "nothing was found");
}
