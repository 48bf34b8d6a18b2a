//! How flat a weight or an activation is.

/// Magnitudes of channels in descending order, as multiples of the root mean square of all
/// elements: where all channels are alike, both curves are level (FlatQuant, arXiv 2410.09426,
/// figure 1).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Envelope {
    /// The largest absolute value of each channel.
    pub(super) largest: Vec<f64>,
    /// The mean absolute value of each channel.
    pub(super) mean: Vec<f64>,
}

/// Sums over the elements of each channel.
#[derive(Debug, Clone)]
pub(super) struct ChannelSums {
    largest: Vec<f64>,
    absolute: Vec<f64>,
    squares: f64,
    /// Elements of each channel.
    n: usize,
}

impl ChannelSums {
    /// Of nothing yet.
    pub(super) fn new(channels: usize) -> Self {
        Self { largest: vec![0.0; channels], absolute: vec![0.0; channels], squares: 0.0, n: 0 }
    }

    /// Takes in an activation `[tokens, channels]`.
    pub(super) fn add_tokens(&mut self, data: &[f32]) {
        for row in data.chunks_exact(self.largest.len().max(1)) {
            row.iter().enumerate().for_each(|(channel, x)| self.add(channel, *x));
            self.n += 1;
        }
    }

    /// Takes in a weight `[channels, n_columns]`.
    pub(super) fn add_weight(&mut self, data: &[f32], n_columns: usize) {
        for (channel, row) in data.chunks_exact(n_columns.max(1)).enumerate() {
            row.iter().for_each(|x| self.add(channel, *x));
        }
        self.n += n_columns;
    }

    fn add(&mut self, channel: usize, x: f32) {
        let x = f64::from(x).abs();
        self.largest[channel] = self.largest[channel].max(x);
        self.absolute[channel] += x;
        self.squares += x * x;
    }

    /// The magnitudes; `None` where there is nothing but zeros.
    pub(super) fn envelope(&self) -> Option<Envelope> {
        let n = self.n as f64;
        let rms = (self.squares / (n * self.largest.len() as f64)).sqrt();
        let sorted = |values: &[f64], unit: f64| {
            let mut values: Vec<f64> = values.iter().map(|x| x / unit).collect();
            values.sort_by(|a, b| b.total_cmp(a));
            values
        };
        (rms > 0.0 && rms.is_finite()).then(|| Envelope {
            largest: sorted(&self.largest, rms),
            mean: sorted(&self.absolute, rms * n),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_sorted_and_measured_by_the_root_mean_square() {
        let mut sums = ChannelSums::new(2);
        sums.add_tokens(&[1.0, -7.0, -1.0, 1.0, 1.0, 7.0, 1.0, 1.0]);
        let envelope = sums.envelope().unwrap();
        let rms = (104f64 / 8.0).sqrt();
        assert_eq!(envelope.largest, [7.0 / rms, 1.0 / rms]);
        assert!((envelope.mean[0] - 4.0 / rms).abs() < 1e-12);
        assert!((envelope.mean[1] - 1.0 / rms).abs() < 1e-12);
    }

    #[test]
    fn a_weight_is_the_activation_turned_round() {
        let (mut tokens, mut weight) = (ChannelSums::new(3), ChannelSums::new(3));
        tokens.add_tokens(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        weight.add_weight(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], 2);
        assert_eq!(tokens.envelope(), weight.envelope());
    }

    #[test]
    fn zeros_have_no_envelope() {
        assert_eq!(ChannelSums::new(4).envelope(), None);
    }
}
