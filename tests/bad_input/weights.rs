//! Weights that are no numbers.
use planish_ir::Tensor;

use crate::graphs::linears;
use crate::support::Bench;

/// Spoils one element of the weight of a linear layer, counted from 0; returns its name.
fn spoil(bench: &Bench, layer: usize, element: f32) -> String {
    change(bench, layer, |data| data[1234] = element)
}

/// Changes the elements of the weight of a linear layer; returns its name.
fn change(bench: &Bench, layer: usize, change: impl Fn(&mut [f32])) -> String {
    let mut name = String::new();
    bench.edit(|model| {
        let linear = linears(&model.graph)[layer];
        let weight = model.graph.node(linear).input(1).unwrap();
        let value = model.graph.value_mut(weight);
        let tensor = value.constant.take().unwrap();
        let mut data = tensor.to_f32_vec().unwrap();
        change(&mut data);
        value.constant = Some(Tensor::from_vec(tensor.shape(), data));
        name = value.name.clone();
    });
    name
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let cases =
        [(f32::NAN, "not a number"), (f32::INFINITY, "infinite"), (f32::NEG_INFINITY, "infinite")];
    for (element, what) in cases {
        let bench = Bench::new();
        let name = spoil(&bench, 0, element);
        let parts = ["m/model.onnx", &format!("the weight \"{name}\""), what];
        for method in ["rtn", "hadamard", "orthogonal"] {
            bench.refuses(&format!("quantize m -o out --method {method}"), &parts);
        }
        bench.refuses("run m --prompt w1", &parts);
        bench.refuses("eval m --text text.txt --context 32", &parts);
        bench.refuses("bench m --prefill 2 --decode 1", &parts);
        bench.refuses("compare m m --text text.txt --context 32", &parts);
        bench.succeeds("inspect m");
    }
}

#[test]
fn logits_that_are_not_finite_stop_an_evaluation() {
    let bench = Bench::new();
    // Numbers, but their sums are none. The last layer of the first block.
    change(&bench, 6, |data| data.fill(f32::MAX));
    let parts = ["logits at position 0 of window 0 are not finite"];
    bench.refuses("eval m --text text.txt --context 32", &parts);
    bench.refuses("compare m m --text text.txt --context 32", &parts);
    bench.refuses("run m --prompt w1", &["the model's logits are not finite"]);
}
