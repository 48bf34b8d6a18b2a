//! Quantising a whole model.

use planish_ir::Model;

use super::cache::quantize_cache;
use super::head::quantize_head;
use super::method::transforms_of;
use super::site::{ErrorSums, constant_bytes, note_left_alone, quantize_site};
use super::{CalibrationStats, Progress, QuantizeError, QuantizeOptions, QuantizeReport};
use crate::sites::{Group, Layout};
use crate::transform::{TransformSet, insert_group};

/// Quantises a canonical model in place: transforms of the method, then weights, activations, KV
/// cache and head in the bits that `options` give. Block by block, so that no more than one
/// block's weights are held as floats of their own. `stats` are needed by SmoothQuant alone;
/// `progress` is called after every block.
///
/// # Errors
/// If there is nothing to quantise, an option does not go with a layer, or a weight is not
/// finite. The model is then half rewritten and must be dropped.
pub fn quantize(
    model: &mut Model,
    options: &QuantizeOptions,
    stats: Option<&CalibrationStats>,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport, QuantizeError> {
    let layout = Layout::new(model)?;
    let set = transforms_of(&model.graph, &layout, options, stats)?;
    quantize_with(model, &layout, &set, options, progress)
}

/// As [`quantize`], with the layout and with transforms from elsewhere (learned ones); the
/// method of `options` is not looked at.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_with(
    model: &mut Model,
    layout: &Layout,
    set: &TransformSet,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<QuantizeReport, QuantizeError> {
    if layout.linears.is_empty() {
        return Err(QuantizeError::NoLinears(layout.to_string()));
    }
    let mut report = QuantizeReport {
        weight_bytes_before: constant_bytes(&model.graph),
        notes: notes(layout, options),
        ..QuantizeReport::default()
    };
    note_left_alone(layout, &mut report);
    let groups = layout.groups();
    let total = groups.len() + 1;
    let mut sums = ErrorSums::default();
    for (done, group) in groups.iter().enumerate() {
        progress(Progress { done, total });
        insert_group(model, layout, set, group)?;
        quantize_group(model, layout, group, options, &mut sums)?;
        model.graph.remove_dead();
    }
    progress(Progress { done: total - 1, total });
    if let Some(head) = &layout.head {
        quantize_head(model, head, options.lm_head_bits, options.clip_search)?;
    }
    model.graph.remove_dead();
    planish_ir::verify(model)?;
    progress(Progress { done: total, total });
    if options.bits.quantizes_weights() || options.bits.quantizes_activations() {
        report.n_linears = layout.linears.len();
    }
    report.weight_error = if sums.norm > 0.0 { sums.error / sums.norm } else { 0.0 };
    report.weight_bytes_after = constant_bytes(&model.graph);
    Ok(report)
}

fn quantize_group(
    model: &mut Model,
    layout: &Layout,
    group: &Group,
    options: &QuantizeOptions,
    sums: &mut ErrorSums,
) -> Result<(), QuantizeError> {
    for site in &group.sites {
        quantize_site(&mut model.graph, layout, *site, options, sums)?;
    }
    if options.bits.quantizes_kv() {
        for attention in &group.attentions {
            let attention = layout.attention(*attention);
            quantize_cache(&mut model.graph, attention, options.bits.kv);
        }
    }
    Ok(())
}

/// What the options ask for and the model does not have.
fn notes(layout: &Layout, options: &QuantizeOptions) -> Vec<String> {
    let bits = options.bits;
    let cases = [
        (
            bits.quantizes_kv() && layout.attentions.is_empty(),
            "no attention was found: the KV cache is not quantised",
        ),
        (
            options.lm_head_bits < 16 && layout.head.is_none(),
            "no head was found: nothing is quantised in its place",
        ),
        (
            options.group_size.is_some() && !bits.quantizes_weights(),
            "the group size has no effect: weights are left in floating point",
        ),
        (
            layout.blocks.is_empty(),
            "no repeated blocks were found: linear layers are quantised wherever they stand",
        ),
    ];
    cases.iter().filter(|(applies, _)| *applies).map(|(_, note)| (*note).to_owned()).collect()
}
