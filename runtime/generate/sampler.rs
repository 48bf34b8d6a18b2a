//! Choosing the next token from logits.
use thiserror::Error;

use super::SplitMix64;
use crate::model::argmax;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f32,
    /// Keeps the likeliest tokens whose probabilities reach this sum together; 1 keeps all.
    pub top_p: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

/// Why no token can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum SamplingError {
    /// The temperature is negative, infinite or not a number.
    #[error("the temperature is {0}, but it must be a number of at least 0")]
    Temperature(f32),
    /// `top_p` is outside (0, 1].
    #[error("top-p is {0}, but it must be above 0 and at most 1")]
    TopP(f32),
    /// Every logit is -∞, or one is NaN or +∞, or there is none.
    #[error("the model's logits are not finite")]
    NotFinite,
}

/// Chooses tokens, with a random state of its own.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    random: SplitMix64,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// [`SamplingError::Temperature`] and [`SamplingError::TopP`].
    pub fn new(options: SamplingOptions) -> Result<Self, SamplingError> {
        let SamplingOptions { temperature, top_p, seed } = options;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(SamplingError::Temperature(temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SamplingError::TopP(top_p));
        }
        Ok(Self { options, random: SplitMix64::new(seed) })
    }

    /// Chooses a token from one row of logits, as they come from the model.
    ///
    /// # Errors
    /// [`SamplingError::NotFinite`].
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let best = argmax(logits).ok_or(SamplingError::NotFinite)?;
        if self.options.temperature == 0.0 {
            return Ok(best as u32);
        }
        let mut weights = self.weights(logits, logits[best]);
        let total = self.keep_likeliest(&mut weights);
        let target = self.random.next_f64() * total;
        let mut sum = 0.0;
        for (token, weight) in &weights {
            sum += weight;
            if sum > target {
                return Ok(*token);
            }
        }
        // Rounding may leave the sum a hair below the target.
        Ok(weights.last().map_or(best as u32, |(token, _)| *token))
    }

    /// Tokens with exp((logit − max) / temperature), those of weight zero left out.
    fn weights(&self, logits: &[f32], max: f32) -> Vec<(u32, f64)> {
        let scale = 1.0 / f64::from(self.options.temperature);
        let weights = logits.iter().enumerate().map(|(token, &logit)| {
            (token as u32, ((f64::from(logit) - f64::from(max)) * scale).exp())
        });
        weights.filter(|(_, weight)| *weight > 0.0).collect()
    }

    /// Cuts `weights` down to the smallest set of likeliest tokens with a share of `top_p`; returns
    /// the sum of what stays.
    fn keep_likeliest(&self, weights: &mut Vec<(u32, f64)>) -> f64 {
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        if self.options.top_p == 1.0 {
            return total;
        }
        weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let enough = total * f64::from(self.options.top_p);
        let mut sum = 0.0;
        let mut kept = 0;
        while kept < weights.len() && (kept == 0 || sum < enough) {
            sum += weights[kept].1;
            kept += 1;
        }
        weights.truncate(kept);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(temperature: f32, top_p: f32, logits: &[f32]) -> Vec<usize> {
        let mut sampler = Sampler::new(SamplingOptions { temperature, top_p, seed: 1 }).unwrap();
        let mut counts = vec![0; logits.len()];
        (0..20_000).for_each(|_| counts[sampler.sample(logits).unwrap() as usize] += 1);
        counts
    }

    /// ln of 0.5, 0.3, 0.2 in another order, all shifted.
    fn logits() -> [f32; 3] {
        [0.2f32.ln() + 9.0, 0.5f32.ln() + 9.0, 0.3f32.ln() + 9.0]
    }

    #[test]
    fn zero_temperature_takes_the_first_of_the_best() {
        let mut sampler = Sampler::new(SamplingOptions::default()).unwrap();
        assert_eq!(sampler.sample(&[1.0, 3.0, f32::NEG_INFINITY, 3.0]), Ok(1));
    }

    #[test]
    fn temperature_one_follows_the_probabilities() {
        let counts = counts(1.0, 1.0, &logits());
        for (count, p) in counts.iter().zip([0.2, 0.5, 0.3]) {
            assert!((*count as f64 / 20_000.0 - p).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn temperature_two_takes_square_roots_of_them() {
        let roots = [0.2f64.sqrt(), 0.5f64.sqrt(), 0.3f64.sqrt()];
        let total: f64 = roots.iter().sum();
        let counts = counts(2.0, 1.0, &logits());
        for (count, root) in counts.iter().zip(roots) {
            assert!((*count as f64 / 20_000.0 - root / total).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        let counts = counts(1.0, 0.7, &logits());
        assert_eq!(counts[0], 0);
        assert!((counts[1] as f64 / 20_000.0 - 0.625).abs() < 0.02, "{counts:?}");
        assert_eq!(super::tests::counts(1.0, 0.4, &logits()), [0, 20_000, 0]);
        assert_eq!(super::tests::counts(1.0, 1e-30, &logits()), [0, 20_000, 0]);
    }

    #[test]
    fn equal_seeds_choose_equal_tokens() {
        let draw = |seed| {
            let options = SamplingOptions { temperature: 1.0, top_p: 0.9, seed };
            let mut sampler = Sampler::new(options).unwrap();
            (0..50).map(|_| sampler.sample(&[0.0; 10]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn tiny_temperatures_do_not_overflow() {
        assert_eq!(counts(1e-38, 1.0, &[1e30, -1e30, 0.0]), [20_000, 0, 0]);
    }

    #[test]
    fn bad_options_and_logits_are_errors() {
        let new =
            |temperature, top_p| Sampler::new(SamplingOptions { temperature, top_p, seed: 0 });
        assert_eq!(new(-0.5, 1.0).unwrap_err(), SamplingError::Temperature(-0.5));
        assert!(new(f32::NAN, 1.0).is_err() && new(f32::INFINITY, 1.0).is_err());
        assert_eq!(new(1.0, 0.0).unwrap_err(), SamplingError::TopP(0.0));
        assert!(new(1.0, 1.5).is_err() && new(1.0, f32::NAN).is_err());
        let mut sampler = new(1.0, 1.0).unwrap();
        for bad in [&[][..], &[0.0, f32::NAN], &[f32::NEG_INFINITY], &[0.0, f32::INFINITY]] {
            assert_eq!(sampler.sample(bad), Err(SamplingError::NotFinite), "{bad:?}");
        }
    }
}
