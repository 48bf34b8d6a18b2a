//! The shift of a site's activation.

use planish_ir::Tensor;

use super::Writer;
use crate::calibrate::{ChannelRange, ParameterKind};
use crate::sites::{NORM_BIAS, SiteId, SiteRole};

impl Writer<'_> {
    /// The shift δ `[channels]`, where one merges: the norm before the site gives x − δ, the
    /// biases of its layers take δ·W in (AffineQuant, arXiv 2403.12544, from Outlier Suppression+,
    /// arXiv 2304.09145).
    pub(super) fn add_shift(&mut self, id: SiteId) {
        let layout = &self.block.layout;
        let site = layout.site(id);
        let wanted = self.options.shifts && self.options.bits.quantizes_activations();
        let takes_shift = wanted && layout.takes_shift(self.graph(), id);
        let SiteRole::Norm { node } = &site.role else { return };
        let Some(bias) = self.graph().node(*node).input(NORM_BIAS).filter(|_| takes_shift) else {
            return;
        };
        let start = Tensor::from_vec(&[site.channels], self.shift_start(id));
        let (slot, shift) = self.builder.parameter("shift", ParameterKind::Shift, start);
        self.sites.entry(id).or_default().shift = Some(slot);
        let shifted = self.builder.op("Sub", &[bias, shift]);
        self.builder.graph.set_input(*node, NORM_BIAS, Some(shifted));
        for linear in &site.linears {
            self.folds.entry(*linear).or_default().row_shift = Some(shift);
        }
    }

    /// The middle of each channel's range, as Outlier Suppression+ has it; zeros where the
    /// activations were not measured.
    fn shift_start(&self, id: SiteId) -> Vec<f32> {
        match self.initial.statistics.ranges.get(&id) {
            Some(ranges) => ranges.iter().map(ChannelRange::centre).collect(),
            None => vec![0.0; self.block.layout.site(id).channels],
        }
    }

    /// δ where learning starts; zeros where there is no shift.
    pub(super) fn shift_at_start(&self, id: SiteId) -> Vec<f32> {
        match self.sites.get(&id).and_then(|slots| slots.shift) {
            Some(_) => self.shift_start(id),
            None => vec![0.0; self.block.layout.site(id).channels],
        }
    }
}
