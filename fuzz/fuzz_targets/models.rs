//! Models changed node by node, attribute by attribute: nearly all of them can be read.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use planish_fuzz::mutate::{Random, mutate};
use planish_onnx::proto::ModelProto;
use prost::Message;

fuzz_target!(init: planish_fuzz::write_seeds(), |data: &[u8]| planish_fuzz::run(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let Ok(mut model) = ModelProto::decode(&data[..size]) else {
        return fuzzer_mutate(data, size, max_size);
    };
    mutate(&mut model, &mut Random::new(u64::from(seed)));
    let bytes = model.encode_to_vec();
    if bytes.len() > max_size {
        return size;
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
});
