//! What the user should know about a request.

use super::{QuantizeOptions, Rounding};
use crate::sites::Layout;

/// What the options ask for and the model does not have, options without effect, and what is not
/// as one may expect.
pub(super) fn notes(layout: &Layout, options: &QuantizeOptions) -> Vec<String> {
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
            options.rounding != Rounding::Nearest && !bits.quantizes_weights(),
            "GPTQ has no effect: weights are left in floating point",
        ),
        (
            layout.blocks.is_empty(),
            "no repeated blocks were found: linear layers are quantised wherever they stand",
        ),
    ];
    let applies = cases.iter().filter(|(applies, _)| *applies);
    let mut notes: Vec<String> = applies.map(|(_, note)| (*note).to_owned()).collect();
    if bits.weights < 4 {
        notes.push(format!(
            "weights of {} bits are stored in 4 bits each: the file is as large as with 4",
            bits.weights
        ));
    }
    notes
}
