//! How much is learned, and how fast.

use std::fmt;

use planish_passes::calibrate::ParameterKind;

/// Learning rates at the start, by kind of parameter; 0 leaves a kind as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of the transforms' matrices.
    pub matrix: f32,
    /// Of the logarithms of per-channel scales, and of per-channel shifts.
    pub scale: f32,
    /// Of clipping.
    pub clip: f32,
    /// Of the layers' weights; 0 keeps the weights.
    pub weight: f32,
}

impl Rates {
    /// The rate of a kind.
    pub fn of(&self, kind: ParameterKind) -> f32 {
        match kind {
            ParameterKind::Matrix => self.matrix,
            ParameterKind::Scale | ParameterKind::Shift => self.scale,
            ParameterKind::Clip => self.clip,
            ParameterKind::Weight => self.weight,
        }
    }
}

/// What each block reads while it learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockInput {
    /// What the full-precision model feeds it: blocks do not depend on each other (FlatQuant).
    FullPrecision,
    /// What the quantised blocks before it give; it learns to make up for their errors.
    Quantized,
}

/// Learning block by block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockRecipe {
    /// Windows of text in all.
    pub windows: usize,
    /// Tokens of a window.
    pub length: usize,
    /// Windows of a step.
    pub batch: usize,
    /// Steps of every block.
    pub steps: usize,
    /// Learning rates at the start.
    pub rates: Rates,
    /// What each block reads.
    pub input: BlockInput,
}

/// Learning all blocks together at the end, by the KL divergence of the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EndToEndRecipe {
    /// Windows of a step.
    pub batch: usize,
    /// Steps; 0 leaves this stage out.
    pub steps: usize,
    /// Learning rates at the start.
    pub rates: Rates,
}

/// A whole calibration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Block by block.
    pub blocks: BlockRecipe,
    /// All together.
    pub end_to_end: EndToEndRecipe,
}

/// The fraction of the highest rate at step `step` of `steps`: a linear rise over the first
/// twentieth, and cosine decay to 1/1000.
pub fn schedule(step: usize, steps: usize) -> f32 {
    const LAST: f32 = 1e-3;
    let rise = (step + 1) as f32 / (steps / 20).max(1) as f32;
    let progress = step as f32 / steps.max(1) as f32;
    let decay = LAST + (1.0 - LAST) * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
    decay * rise.min(1.0)
}

/// Rates that did best on held-out text (`docs/accuracy.md`).
const BLOCK_RATES: Rates = Rates { matrix: 2e-3, scale: 5e-3, clip: 5e-2, weight: 1e-3 };
/// Those of the last stage, likewise.
const LAST_RATES: Rates = Rates { matrix: 1e-4, scale: 2e-4, clip: 2e-3, weight: 2e-4 };

/// What a number of a recipe may be at most, so that products of two do not overflow.
const LARGEST: usize = 1_000_000_000;

impl Recipe {
    /// For two cores: minutes for a model of 135 million parameters.
    pub fn fast() -> Self {
        Self {
            blocks: BlockRecipe {
                windows: 192,
                length: 512,
                batch: 4,
                steps: 75,
                rates: BLOCK_RATES,
                input: BlockInput::FullPrecision,
            },
            end_to_end: EndToEndRecipe { batch: 4, steps: 44, rates: LAST_RATES },
        }
    }

    /// About seven times [`Recipe::fast`] for the blocks, and eleven times in the last stage.
    pub fn balanced() -> Self {
        let mut recipe = Self::fast();
        (recipe.blocks.windows, recipe.blocks.steps) = (536, 500);
        (recipe.end_to_end.batch, recipe.end_to_end.steps) = (8, 250);
        recipe
    }

    /// As many tokens per block as FlatQuant's published recipe: 128 windows of 2,048 tokens, 15
    /// times; then a million tokens and a half through the whole model.
    pub fn full() -> Self {
        let mut recipe = Self::fast();
        recipe.blocks = BlockRecipe {
            windows: 128,
            length: 2048,
            batch: 4,
            steps: 480,
            rates: Rates { matrix: 1e-3, ..BLOCK_RATES },
            input: BlockInput::FullPrecision,
        };
        (recipe.end_to_end.batch, recipe.end_to_end.steps) = (2, 400);
        recipe
    }

    /// The recipe with AffineQuant's rates (arXiv 2403.12544, section 4.1), which has neither the
    /// weights' nor a last stage: with `weight-rate=0,input=quantized,last-steps=0` it is theirs.
    #[must_use]
    pub fn for_affine(mut self) -> Self {
        let weight = self.blocks.rates.weight;
        self.blocks.rates = Rates { matrix: 5e-3, scale: 5e-3, clip: 1e-2, weight };
        self
    }

    /// The recipe with half the rates of weights: where activations are not rounded, there is so
    /// little to make up for that in many steps weights learn the text by heart.
    #[must_use]
    pub fn with_slower_weights(mut self) -> Self {
        self.blocks.rates.weight /= 2.0;
        self.end_to_end.rates.weight /= 2.0;
        self
    }

    /// Whether weights are learned at some stage.
    pub fn learns_weights(&self) -> bool {
        let together = self.end_to_end.steps > 0 && self.end_to_end.rates.weight > 0.0;
        self.blocks.steps > 0 && self.blocks.rates.weight > 0.0 || together
    }

    /// The most windows that a step learns from.
    pub fn largest_batch(&self) -> usize {
        let last = if self.end_to_end.steps > 0 { self.end_to_end.batch } else { 0 };
        self.blocks.batch.max(last)
    }

    /// Checks that the numbers go together.
    ///
    /// # Errors
    /// A sentence that says which do not.
    pub fn check(&self) -> Result<(), String> {
        let BlockRecipe { windows, batch, .. } = self.blocks;
        // The windows are a whole number of batches.
        let taken = windows / batch * batch;
        let largest = self.largest_batch();
        if taken < largest {
            return Err(format!(
                "the recipe has a batch of {largest}, but takes {taken} windows of text in \
                 batches of {batch}"
            ));
        }
        Ok(())
    }

    /// Changes one number by its name, as shown by the text form.
    ///
    /// # Errors
    /// A sentence that says which names there are, or what a value must be.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = || format!("\"{value}\" is no value for {name}");
        let count = || match value.parse::<usize>() {
            Ok(n) if n <= LARGEST => Ok(n),
            _ => Err(wrong()),
        };
        let positive = || count().and_then(|n| if n > 0 { Ok(n) } else { Err(wrong()) });
        let rate = || match value.parse::<f32>() {
            Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
            _ => Err(wrong()),
        };
        let (blocks, together) = (&mut self.blocks, &mut self.end_to_end);
        match name {
            "windows" => blocks.windows = positive()?,
            "length" => blocks.length = positive()?,
            "batch" => blocks.batch = positive()?,
            "steps" => blocks.steps = count()?,
            "matrix-rate" => blocks.rates.matrix = rate()?,
            "scale-rate" => blocks.rates.scale = rate()?,
            "clip-rate" => blocks.rates.clip = rate()?,
            "weight-rate" => blocks.rates.weight = rate()?,
            "input" => {
                blocks.input = match value {
                    "full-precision" => BlockInput::FullPrecision,
                    "quantized" => BlockInput::Quantized,
                    _ => return Err(wrong()),
                };
            }
            "last-batch" => together.batch = positive()?,
            "last-steps" => together.steps = count()?,
            "last-matrix-rate" => together.rates.matrix = rate()?,
            "last-scale-rate" => together.rates.scale = rate()?,
            "last-clip-rate" => together.rates.clip = rate()?,
            "last-weight-rate" => together.rates.weight = rate()?,
            _ => return Err(format!("a recipe has no {name}; it has {self}")),
        }
        Ok(())
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlockRecipe { windows, length, batch, steps, rates, input } = self.blocks;
        let input = match input {
            BlockInput::FullPrecision => "full-precision",
            BlockInput::Quantized => "quantized",
        };
        write!(f, "windows={windows},length={length},batch={batch},steps={steps},")?;
        write!(f, "matrix-rate={},scale-rate={},", rates.matrix, rates.scale)?;
        write!(f, "clip-rate={},weight-rate={},input={input},", rates.clip, rates.weight)?;
        let EndToEndRecipe { batch, steps, rates } = self.end_to_end;
        write!(f, "last-batch={batch},last-steps={steps},last-matrix-rate={},", rates.matrix)?;
        write!(f, "last-scale-rate={},last-clip-rate={},", rates.scale, rates.clip)?;
        write!(f, "last-weight-rate={}", rates.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_recipe_makes_it_again() {
        let wanted = Recipe::full();
        let mut recipe = Recipe::fast().for_affine();
        for change in wanted.to_string().split(',') {
            let (name, value) = change.split_once('=').unwrap();
            recipe.set(name, value).unwrap();
        }
        assert_eq!(recipe, wanted);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let mut recipe = Recipe::fast();
        assert!(recipe.set("speed", "1").unwrap_err().contains("it has windows="));
        for (name, value) in [
            ("steps", "-1"),
            ("windows", "99999999999"),
            ("batch", "0"),
            ("clip-rate", "NaN"),
            ("input", "x"),
        ] {
            assert!(recipe.set(name, value).unwrap_err().contains(value), "{name}");
        }
    }

    #[test]
    fn a_batch_is_no_larger_than_the_text() {
        let check = |changes: &[(&str, &str)]| {
            let mut recipe = Recipe::fast();
            changes.iter().for_each(|(name, value)| recipe.set(name, value).unwrap());
            recipe.check()
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[("windows", "4")]), Ok(()));
        assert!(check(&[("windows", "3")]).unwrap_err().contains("batch of 4"));
        let changes = [("windows", "7"), ("last-batch", "5")];
        assert!(check(&changes).unwrap_err().contains("takes 4 windows"));
        assert_eq!(check(&[changes[0], changes[1], ("last-steps", "0")]), Ok(()));
    }

    #[test]
    fn methods_and_widths_change_rates_alone() {
        let (plain, slower) = (Recipe::balanced(), Recipe::balanced().with_slower_weights());
        assert_eq!(slower.blocks.rates, Rates { weight: 5e-4, ..plain.blocks.rates });
        assert_eq!(slower.end_to_end.rates, Rates { weight: 1e-4, ..plain.end_to_end.rates });
        let affine = Recipe::balanced().for_affine();
        assert_eq!(affine.blocks.rates.weight, plain.blocks.rates.weight);
        assert_eq!(affine.end_to_end, plain.end_to_end);
        assert_ne!(affine.blocks.rates.matrix, plain.blocks.rates.matrix);
    }

    #[test]
    fn the_rate_rises_and_decays_to_a_thousandth() {
        assert_eq!(schedule(0, 10), 1.0);
        assert!((schedule(0, 100) - 0.2).abs() < 1e-6 && schedule(4, 100) > 0.99);
        assert!((schedule(10, 10) - 1e-3).abs() < 1e-6);
    }
}
