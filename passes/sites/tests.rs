//! Layouts of whole decoders.

use planish_ir::{Node, Tensor};

use super::*;
use crate::testing::{Mlp, TinyDecoder};

fn layout(decoder: TinyDecoder) -> Layout {
    Layout::new(&decoder.build(1)).unwrap()
}

fn parts_of_block(layout: &Layout, block: usize) -> Vec<usize> {
    layout.blocks[block].sites.iter().map(|id| layout.site(*id).n_parts).collect()
}

#[test]
fn a_llama_block_has_four_sites() {
    let layout = layout(TinyDecoder::default());
    assert_eq!((layout.blocks.len(), layout.sites.len(), layout.linears.len()), (2, 8, 14));
    assert_eq!(parts_of_block(&layout, 0), [3, 1, 2, 1]);
    assert_eq!(layout.left_alone, []);
    let roles: Vec<&SiteRole> = layout.sites[..4].iter().map(|site| &site.role).collect();
    assert!(matches!(roles[0], SiteRole::Norm { .. }));
    let value = Part { linear: LinearId(2), columns: 0..24 };
    let attention = AttentionId(0);
    assert_eq!(*roles[1], SiteRole::AttentionOutput { attention, value });
    assert!(matches!(roles[2], SiteRole::Norm { .. }));
    assert_eq!(*roles[3], SiteRole::GatedMlp { up: Part { linear: LinearId(5), columns: 0..80 } });
}

#[test]
fn fused_projections_count_as_what_they_are_split_into() {
    let layout = layout(TinyDecoder { fused: true, bias: true, ..TinyDecoder::default() });
    assert_eq!(layout.linears.len(), 8);
    assert_eq!(parts_of_block(&layout, 1), [3, 1, 2, 1]);
    let value = Part { linear: LinearId(0), columns: 72..96 };
    let attention = AttentionId(0);
    assert_eq!(layout.sites[1].role, SiteRole::AttentionOutput { attention, value });
    let up = Part { linear: LinearId(2), columns: 80..160 };
    assert_eq!(layout.sites[3].role, SiteRole::GatedMlp { up });
}

#[test]
fn an_mlp_without_gate_takes_no_scale() {
    let layout = layout(TinyDecoder::gpt2());
    assert_eq!(parts_of_block(&layout, 0), [3, 1, 1, 1]);
    assert_eq!(layout.sites[3].role, SiteRole::Other);
}

#[test]
fn keys_are_transformed_online_behind_a_rotary_embedding_only() {
    let rotary = layout(TinyDecoder::default());
    assert_eq!(rotary.attentions[0].head_transform, Ok(HeadTransform::Online));
    assert_eq!((rotary.attentions[0].head_size, rotary.attentions[0].kv_heads), (12, 2));
    let learned = layout(TinyDecoder::gpt2());
    let query = Part { linear: LinearId(0), columns: 0..48 };
    let key = Part { linear: LinearId(0), columns: 48..96 };
    let expected = Ok(HeadTransform::Folded { query, key });
    assert_eq!(learned.attentions[0].head_transform, expected);
}

#[test]
fn blocks_follow_each_other() {
    let layout = layout(TinyDecoder { n_blocks: 5, mlp: Mlp::Gelu, ..TinyDecoder::default() });
    assert_eq!(layout.blocks.len(), 5);
    assert!(layout.blocks.windows(2).all(|pair| pair[0].output == pair[1].input));
    assert!(layout.blocks.iter().all(|b| b.attentions.len() == 1 && b.sites.len() == 4));
    let groups = layout.groups();
    assert_eq!((groups.len(), groups[4].sites.len()), (5, 4));
}

#[test]
fn a_single_block_is_found() {
    let layout = layout(TinyDecoder { n_blocks: 1, ..TinyDecoder::default() });
    assert_eq!((layout.blocks.len(), layout.blocks[0].sites.len()), (1, 4));
}

#[test]
fn tied_and_untied_heads_are_told_apart() {
    let tied = layout(TinyDecoder::default()).head.unwrap();
    assert!(tied.is_tied() && tied.transpose.is_some());
    let model = TinyDecoder { tied: false, ..TinyDecoder::default() }.build(1);
    let untied = Layout::new(&model).unwrap().head.unwrap();
    assert!(!untied.is_tied());
    assert_eq!(untied.sizes(&model.graph), Some((48, 64)));
}

#[test]
fn a_norm_with_a_second_reader_takes_no_scale() {
    let mut model = TinyDecoder::default().build(1);
    let site = Layout::new(&model).unwrap().sites[0].input;
    let extra = model.graph.add_op("extra", Node::new("Neg", vec![Some(site)]));
    model.graph.outputs.push(extra);
    assert_eq!(Layout::new(&model).unwrap().sites[0].role, SiteRole::Other);
}

#[test]
fn products_that_are_no_linear_layers_are_reported() {
    let mut model = TinyDecoder::default().build(1);
    let x = Layout::new(&model).unwrap().sites[0].input;
    let graph = &mut model.graph;
    let turned =
        graph.add_op("t", Node::new("Transpose", vec![Some(x)]).with("perm", vec![0i64, 2, 1]));
    let product = graph.add_op("scores", Node::new("MatMul", vec![Some(x), Some(turned)]));
    let double = graph.add_constant("double", Tensor::from_vec(&[48, 1], vec![1.0f64; 48]));
    let cast = Node::new("Cast", vec![Some(x)]).with("to", 11i64);
    let cast = graph.add_op("cast", cast);
    let second = graph.add_op("precise", Node::new("MatMul", vec![Some(cast), Some(double)]));
    graph.outputs.extend([product, second]);
    let layout = Layout::new(&model).unwrap();
    let reasons: Vec<&str> = layout.left_alone.iter().map(|left| left.reason.as_str()).collect();
    assert_eq!(reasons, ["both inputs are activations", "its weight is of type double"]);
    let text = layout.to_string();
    assert!(text.contains("left alone: MatMul \"scores\": both inputs are activations"), "{text}");
}

#[test]
fn equal_blocks_are_described_once() {
    let text = layout(TinyDecoder::default()).to_string();
    let expected = "2 blocks, 8 sites, 14 linear layers\nblocks 0 to 1:\n  48 channels to 48, 24, 24, \
                    after a norm\n  48 channels to 48, after an attention\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with("transform of keys: online\nhead: tied to the embedding\n"), "{text}");
}
