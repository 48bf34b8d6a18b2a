//! Transforms leave a model's function as it is.

use planish_ir::{Model, Tensor};

use super::*;
use crate::sites::{Layout, SiteRole};
use crate::testing::{Mlp, Norm, TinyDecoder, largest_difference, run};

/// Random invertible matrices, scales and shifts wherever the layout takes any.
fn random_set(model: &Model, layout: &Layout, seed: u64) -> TransformSet {
    let mut random = Random::new(seed);
    let mut scales = |n: usize| Some((0..n).map(|_| 4f64.powf(random.uniform() - 0.5)).collect());
    let mut matrices = Random::new(seed + 1);
    let mut invertible = |n: usize| matrices.invertible(n, 4.0);
    let mut sites: Vec<SiteTransform> = Vec::new();
    sites.extend(layout.sites.iter().map(|site| match &site.role {
        SiteRole::AttentionOutput { attention, .. } => {
            let attention = layout.attention(*attention);
            let scale = scales(attention.kv_heads * attention.v_head_size);
            let across = Some(invertible(attention.q_heads));
            let within = Some(invertible(attention.v_head_size));
            let matrix = SiteMatrix::Heads { across, within };
            SiteTransform { shift: None, scale, matrix }
        }
        role => {
            let (n1, n2) = kronecker_sizes(site.channels);
            let matrix =
                SiteMatrix::Kronecker { left: Some(invertible(n1)), right: invertible(n2) };
            let scale = if *role == SiteRole::Other { None } else { scales(site.channels) };
            SiteTransform { shift: None, scale, matrix }
        }
    }));
    add_shifts(model, layout, &mut sites, seed + 2);
    let heads = layout.attentions.iter().map(|a| Some(invertible(a.head_size))).collect();
    TransformSet { sites, heads }
}

/// Random shifts, some of them large, at every site that takes one; returns how many.
fn add_shifts(model: &Model, layout: &Layout, sites: &mut [SiteTransform], seed: u64) -> usize {
    let mut random = Random::new(seed);
    let takes = layout.site_ids().filter(|id| layout.takes_shift(&model.graph, *id));
    let mut n_sites = 0;
    for id in takes {
        let n = layout.site(id).channels;
        sites[id.0].shift = Some((0..n).map(|_| random.normal().powi(3)).collect());
        n_sites += 1;
    }
    n_sites
}

/// A model with random transforms, which computes what it did without them.
fn transformed(decoder: TinyDecoder, seed: u64) -> Model {
    let mut model = decoder.build(seed + 6);
    let before = run(&model);
    let layout = Layout::new(&model).unwrap();
    let set = random_set(&model, &layout, seed);
    insert_transforms(&mut model, &layout, &set).unwrap();
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
    let set = random_set(&model, &layout, 5);
    insert_transforms(&mut model, &layout, &set).unwrap();
    assert!(largest_difference(&before, &run(&model)) < 1e-4);
}

#[test]
fn a_singular_transform_is_refused_by_its_place() {
    let mut model = TinyDecoder::default().build(1);
    let layout = Layout::new(&model).unwrap();
    let mut set = TransformSet::identity(&layout);
    let left = Some(Matrix::from_fn(6, 6, |_, _| 1.0));
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

#[test]
fn shifts_alone_compute_the_same() {
    let biased = TinyDecoder { norm: Norm::Layer, bias: true, ..TinyDecoder::default() };
    for decoder in [TinyDecoder::gpt2(), biased] {
        let mut model = decoder.build(3);
        let before = run(&model);
        let layout = Layout::new(&model).unwrap();
        let mut set = TransformSet::identity(&layout);
        let n_sites = add_shifts(&model, &layout, &mut set.sites, 4);
        assert_eq!(n_sites, 2 * decoder.n_blocks, "before attention and MLP");
        let n_nodes = model.graph.node_ids().count();
        insert_transforms(&mut model, &layout, &set).unwrap();
        assert_eq!(model.graph.node_ids().count(), n_nodes, "shifts cost nothing at run time");
        let difference = largest_difference(&before, &run(&model));
        assert!(difference > 0.0 && difference < 1e-4, "{decoder:?}: {difference}");
    }
}

#[test]
fn shifts_go_through_weights_of_16_bits() {
    let mut model = TinyDecoder::gpt2().build(3);
    let layout = Layout::new(&model).unwrap();
    for linear in &layout.linears {
        let weight = model.graph.constant(linear.weight).unwrap();
        let halves = weight.to_f32_vec().unwrap().into_iter().map(half::f16::from_f32).collect();
        let halves = Tensor::from_vec(weight.shape(), halves);
        let halves = model.graph.add_constant("halves", halves);
        model.graph.set_input(linear.node, 1, Some(halves));
    }
    model.graph.remove_dead();
    let before = run(&model);
    let layout = Layout::new(&model).unwrap();
    let set = random_set(&model, &layout, 8);
    insert_transforms(&mut model, &layout, &set).unwrap();
    assert!(largest_difference(&before, &run(&model)) < 1e-4);
}

#[test]
fn a_norm_bias_that_others_read_stays_theirs() {
    let mut model = TinyDecoder::gpt2().build(3);
    let layout = Layout::new(&model).unwrap();
    let norm = |site: usize| match layout.sites[site].role {
        SiteRole::Norm { node } => node,
        _ => panic!("no norm before site {site}"),
    };
    let shared = model.graph.node(norm(0)).input(2);
    for site in [2, 4, 6] {
        model.graph.set_input(norm(site), 2, shared);
    }
    model.graph.remove_dead();
    let before = run(&model);
    let mut set = TransformSet::identity(&layout);
    set.sites[2].shift = Some(vec![3.0; layout.sites[2].channels]);
    insert_transforms(&mut model, &layout, &set).unwrap();
    assert_eq!(model.graph.node(norm(6)).input(2), shared);
    assert!(largest_difference(&before, &run(&model)) < 1e-4);
}

#[test]
fn a_shift_without_biases_to_take_it_is_refused() {
    let refuse = |decoder: TinyDecoder, site: usize, shift: Vec<f64>, expected: &str| {
        let mut model = decoder.build(1);
        let layout = Layout::new(&model).unwrap();
        let mut set = TransformSet::identity(&layout);
        set.sites[site].shift = Some(shift);
        let error = insert_transforms(&mut model, &layout, &set).unwrap_err().to_string();
        assert!(error.contains(expected), "{decoder:?}: {error}");
    };
    let gpt2 = TinyDecoder::gpt2();
    let no_bias = "a bias in the norm before and every layer";
    refuse(TinyDecoder::default(), 0, vec![1.0; 48], no_bias);
    refuse(TinyDecoder { bias: true, ..TinyDecoder::default() }, 0, vec![1.0; 48], no_bias);
    refuse(TinyDecoder { bias: false, ..gpt2 }, 0, vec![1.0; 48], no_bias);
    refuse(gpt2, 1, vec![1.0; 48], no_bias);
    refuse(gpt2, 0, vec![1.0; 47], "not as many shifts as channels");
    refuse(gpt2, 0, vec![f64::NAN; 48], "not a finite number");
}

/// The model with its stream rotated, which computes what it did before.
fn with_rotated_stream(decoder: TinyDecoder) -> Model {
    let mut model = decoder.build(3);
    let before = run(&model);
    let layout = Layout::new(&model).unwrap();
    let stream = layout.residual_stream(&model.graph).unwrap();
    let (n1, n2) = kronecker_sizes(stream.channels);
    let mut random = Random::new(8);
    let rotation = StreamRotation { left: random.orthogonal(n1), right: random.orthogonal(n2) };
    rotate_stream(&mut model, &layout, &stream, &rotation).unwrap();
    planish_ir::verify(&model).unwrap();
    let difference = largest_difference(&before, &run(&model));
    assert!(difference < 1e-5, "{decoder:?}: {difference}");
    model
}

#[test]
fn the_stream_can_have_another_basis() {
    for decoder in [
        TinyDecoder::default(),
        TinyDecoder { tied: false, bias: true, ..TinyDecoder::default() },
        TinyDecoder { fused: true, hidden: 42, bias: true, ..TinyDecoder::default() },
        TinyDecoder { rotary: true, mlp: Mlp::Gelu, tied: false, ..TinyDecoder::default() },
    ] {
        let (before, after) = (decoder.build(3), with_rotated_stream(decoder));
        let n_nodes = |model: &Model| model.graph.node_ids().count();
        assert_eq!(n_nodes(&after), n_nodes(&before), "nothing is left to run");
        let layout = Layout::new(&after).unwrap();
        assert!(!layout.head.as_ref().unwrap().is_tied(), "each has its own table");
        let ones = |id| {
            let weight = after.graph.node(id).input(1).unwrap();
            after.graph.constant(weight).unwrap().to_f32_vec().unwrap().iter().all(|x| *x == 1.0)
        };
        let norms = layout.sites.iter().filter_map(|site| match site.role {
            SiteRole::Norm { node } => Some(node),
            _ => None,
        });
        let norms: Vec<_> = norms.collect();
        assert!(norms.len() == 2 * decoder.n_blocks && norms.into_iter().all(ones));
        // Every weight at the stream is another one, and so is the embedding.
        let embedding = |model: &Model| {
            let node = Layout::new(model).unwrap().embedding.unwrap();
            let table = model.graph.node(node).input(0).unwrap();
            model.graph.constant(table).unwrap().to_f32_vec().unwrap()
        };
        let (old, new) = (embedding(&before), embedding(&after));
        assert!(old.iter().zip(&new).any(|(a, b)| (a - b).abs() > 1e-3));
    }
}

#[test]
fn a_stream_with_a_basis_of_its_own_is_left_alone() {
    let reason = |model: &Model| {
        Layout::new(model).unwrap().residual_stream(&model.graph).expect_err("a reason")
    };
    let layer_norms = TinyDecoder { norm: Norm::Layer, ..TinyDecoder::default() };
    assert!(reason(&layer_norms.build(1)).contains("is read by LayerNormalization"));
    assert!(reason(&TinyDecoder::gpt2().build(1)).contains("stand for themselves"));
    // A norm behind an attention weighs the channels of the stream.
    let mut model = TinyDecoder::default().build(1);
    let layout = Layout::new(&model).unwrap();
    let output = layout.linears[3].output;
    let (add, index) = model.graph.users(output)[0];
    let weight = model.graph.add_constant("w", Tensor::from_vec(&[48], vec![2f32; 48]));
    let norm = planish_ir::Node::new("RMSNormalization", vec![Some(output), Some(weight)]);
    let normed = model.graph.add_op("post_norm", norm);
    model.graph.set_input(add, index, Some(normed));
    assert!(reason(&model).contains("is written by RMSNormalization"), "{}", reason(&model));
    // Whoever reads the stream itself would see another one.
    let mut model = TinyDecoder::default().build(1);
    let state = Layout::new(&model).unwrap().blocks[0].output;
    model.graph.outputs.push(state);
    assert!(reason(&model).contains("leaves the graph"));
}
