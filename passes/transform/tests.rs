//! Transforms leave a model's function as it is.

use planish_ir::Model;

use super::*;
use crate::sites::{Layout, SiteRole};
use crate::testing::{Mlp, Norm, TinyDecoder, largest_difference, run};

/// Random invertible matrices and random scales wherever the layout takes any.
fn random_set(layout: &Layout, seed: u64) -> TransformSet {
    let mut random = Random::new(seed);
    let mut scales = |n: usize| Some((0..n).map(|_| 4f64.powf(random.uniform() - 0.5)).collect());
    let mut matrices = Random::new(seed + 1);
    let mut invertible = |n: usize| matrices.invertible(n, 4.0);
    let sites = layout.sites.iter().map(|site| match &site.role {
        SiteRole::AttentionOutput { attention, .. } => {
            let attention = layout.attention(*attention);
            let scale = scales(attention.kv_heads * attention.v_head_size);
            let across = Some(invertible(attention.q_heads));
            let within = Some(invertible(attention.v_head_size));
            SiteTransform { scale, matrix: SiteMatrix::Heads { across, within } }
        }
        role => {
            let (n1, n2) = kronecker_sizes(site.channels);
            let matrix = SiteMatrix::Kronecker { left: invertible(n1), right: invertible(n2) };
            let scale = if *role == SiteRole::Other { None } else { scales(site.channels) };
            SiteTransform { scale, matrix }
        }
    });
    let sites = sites.collect();
    let heads = layout.attentions.iter().map(|a| Some(invertible(a.head_size))).collect();
    TransformSet { sites, heads }
}

/// A model with random transforms, which computes what it did without them.
fn transformed(decoder: TinyDecoder, seed: u64) -> Model {
    let mut model = decoder.build(seed + 6);
    let before = run(&model);
    let layout = Layout::new(&model).unwrap();
    insert_transforms(&mut model, &layout, &random_set(&layout, seed)).unwrap();
    planish_ir::verify(&model).unwrap();
    let difference = largest_difference(&before, &run(&model));
    assert!(difference < 1e-4, "{decoder:?}, seed {seed}: {difference}");
    model
}

fn check_invariance(decoder: TinyDecoder) {
    let model = transformed(decoder, 5);
    let n_transforms =
        model.graph.node_ids().filter(|id| model.graph.node(*id).domain == "planish").count();
    let per_block = if decoder.rotary { 6 } else { 4 };
    assert_eq!(n_transforms, per_block * decoder.n_blocks);
}

/// A decoder of random sizes and parts.
fn random_decoder(random: &mut Random) -> TinyDecoder {
    let mut pick = |from: &[usize]| from[(random.bits() % from.len() as u64) as usize];
    let kv_heads = pick(&[1, 2, 3]);
    let mut decoder = TinyDecoder {
        hidden: pick(&[12, 20, 32, 42, 48]),
        q_heads: kv_heads * pick(&[1, 2, 3]),
        kv_heads,
        head_size: pick(&[4, 6, 8, 10]),
        ffn: pick(&[16, 30, 56, 80]),
        n_blocks: pick(&[2, 3]),
        tied: pick(&[0, 1]) == 1,
        bias: pick(&[0, 1]) == 1,
        fused: pick(&[0, 1]) == 1,
        rotary: pick(&[0, 1, 1]) == 1,
        ..TinyDecoder::default()
    };
    decoder.norm = if pick(&[0, 1]) == 0 { Norm::Rms } else { Norm::Layer };
    decoder.mlp = if pick(&[0, 1]) == 0 { Mlp::SwiGlu } else { Mlp::Gelu };
    decoder
}

#[test]
fn random_decoders_compute_the_same() {
    let mut random = Random::new(17);
    for seed in 0..40 {
        transformed(random_decoder(&mut random), seed);
    }
}

#[test]
fn a_llama_computes_the_same() {
    check_invariance(TinyDecoder::default());
}

#[test]
fn one_head_a_group_computes_the_same() {
    check_invariance(TinyDecoder { kv_heads: 4, ..TinyDecoder::default() });
}

#[test]
fn biases_compute_the_same() {
    check_invariance(TinyDecoder { bias: true, tied: false, ..TinyDecoder::default() });
}

#[test]
fn fused_projections_compute_the_same() {
    check_invariance(TinyDecoder { fused: true, ..TinyDecoder::default() });
    check_invariance(TinyDecoder { fused: true, bias: true, ..TinyDecoder::default() });
}

#[test]
fn layer_norms_compute_the_same() {
    check_invariance(TinyDecoder { norm: Norm::Layer, ..TinyDecoder::default() });
}

#[test]
fn an_mlp_without_gate_computes_the_same() {
    check_invariance(TinyDecoder { mlp: Mlp::Gelu, bias: true, ..TinyDecoder::default() });
}

#[test]
fn a_gpt2_computes_the_same_with_keys_folded() {
    check_invariance(TinyDecoder::gpt2());
}

#[test]
fn a_weight_that_two_layers_share_is_transformed_for_each() {
    let mut model = TinyDecoder::default().build(11);
    let layout = Layout::new(&model).unwrap();
    let (first, second) = (&layout.linears[0], &layout.linears[7]);
    model.graph.set_input(second.node, 1, Some(first.weight));
    model.graph.remove_dead();
    let before = run(&model);
    let layout = Layout::new(&model).unwrap();
    insert_transforms(&mut model, &layout, &random_set(&layout, 5)).unwrap();
    assert!(largest_difference(&before, &run(&model)) < 1e-4);
}

#[test]
fn a_singular_transform_is_refused_by_its_place() {
    let mut model = TinyDecoder::default().build(1);
    let layout = Layout::new(&model).unwrap();
    let mut set = TransformSet::identity(&layout);
    let left = Matrix::from_fn(6, 6, |_, _| 1.0);
    set.sites[2].matrix = SiteMatrix::Kronecker { left, right: Matrix::identity(8) };
    let error = insert_transforms(&mut model, &layout, &set).unwrap_err().to_string();
    assert!(error.contains("the site of MatMul \"gate\" can't be inverted"), "{error}");
}

#[test]
fn a_transform_of_the_wrong_size_is_refused() {
    let mut model = TinyDecoder::gpt2().build(1);
    let layout = Layout::new(&model).unwrap();
    let refuse = |model: &mut Model, set: &TransformSet, expected: &str| {
        let error = insert_transforms(model, &layout, set).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let mut set = TransformSet::identity(&layout);
    set.heads[0] = Some(Matrix::identity(5));
    refuse(&mut model, &set, "not of the size of a head");
    let mut set = TransformSet::identity(&layout);
    set.sites[3].scale = Some(vec![1.0; 80]);
    refuse(&mut model, &set, "nothing before it takes a scale");
    set.sites[3].scale = None;
    set.sites[0].scale = Some(vec![0.0; 48]);
    refuse(&mut model, &set, "not a positive number");
}
