//! The widths of weights, activations and KV cache, written as in the papers: `w4a4kv4`.
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Widths in bits; 16 means "left in floating point".
///
/// The spelling is the one of the literature (QuaRot, SpinQuant, FlatQuant): `w4a4kv4` means 4-bit
/// weights, 4-bit activations and a 4-bit KV cache. The last part may be left out (`w3a16`): the
/// cache is then left in floating point.
///
/// ```
/// use planish_passes::quantize::BitWidths;
/// let bits: BitWidths = "w4a8kv16".parse().unwrap();
/// assert_eq!((bits.weights, bits.activations, bits.kv), (4, 8, 16));
/// assert_eq!(bits.to_string(), "w4a8kv16");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BitWidths {
    /// Bits of a weight of a linear layer: 2, 3, 4, 8 or 16.
    pub weights: u8,
    /// Bits of an activation that a linear layer reads: 4, 8 or 16.
    pub activations: u8,
    /// Bits of a cached key or value: 4, 8 or 16.
    pub kv: u8,
}

impl BitWidths {
    /// 4 bits for everything.
    pub const W4A4KV4: Self = Self { weights: 4, activations: 4, kv: 4 };

    /// Whether weights are quantised.
    pub fn quantizes_weights(self) -> bool {
        self.weights < 16
    }

    /// Whether activations are quantised.
    pub fn quantizes_activations(self) -> bool {
        self.activations < 16
    }

    /// Whether the KV cache is quantised.
    pub fn quantizes_kv(self) -> bool {
        self.kv < 16
    }
}

/// Why a text is no [`BitWidths`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseBitWidthsError {
    /// One of the parts `w`, `a`, `kv` is not where it should be.
    #[error("\"{text}\" lacks the part \"{part}\": widths are written like w4a4kv4")]
    MissingPart {
        /// The text that was parsed.
        text: String,
        /// The prefix that was expected.
        part: &'static str,
    },
    /// A part has a width that it can't have.
    #[error("\"{text}\" has the width \"{width}\" for {part}: only {allowed} exist")]
    BadWidth {
        /// The text that was parsed.
        text: String,
        /// The prefix of the part.
        part: &'static str,
        /// What stands after the prefix.
        width: String,
        /// The widths of that part.
        allowed: &'static str,
    },
    /// Something follows the last part.
    #[error("\"{text}\" has \"{rest}\" after its parts: widths are written like w4a4kv4")]
    Trailing {
        /// The text that was parsed.
        text: String,
        /// What follows.
        rest: String,
    },
}

impl FromStr for BitWidths {
    type Err = ParseBitWidthsError;

    /// Parses `w{2,3,4,8,16}a{4,8,16}` with `kv{4,8,16}` after it or nothing, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let (weights, rest) = part(text, &lower, &WEIGHTS)?;
        let (activations, rest) = part(text, rest, &ACTIVATIONS)?;
        let (kv, rest) = if rest.is_empty() { (16, rest) } else { part(text, rest, &KV)? };
        if !rest.is_empty() {
            return Err(ParseBitWidthsError::Trailing { text: text.into(), rest: rest.into() });
        }
        Ok(Self { weights, activations, kv })
    }
}

/// A part of the text: its prefix and the widths that may follow.
struct Part {
    prefix: &'static str,
    widths: &'static [u8],
    allowed: &'static str,
}

const WEIGHTS: Part = Part { prefix: "w", widths: &[2, 3, 4, 8, 16], allowed: "2, 3, 4, 8 and 16" };
const ACTIVATIONS: Part = Part { prefix: "a", widths: &[4, 8, 16], allowed: "4, 8 and 16" };
const KV: Part = Part { prefix: "kv", ..ACTIVATIONS };

/// Takes a part off the front of `rest`; returns its width and what follows.
fn part<'a>(text: &str, rest: &'a str, part: &Part) -> Result<(u8, &'a str), ParseBitWidthsError> {
    let Part { prefix, widths, allowed } = *part;
    let after = rest
        .strip_prefix(prefix)
        .ok_or_else(|| ParseBitWidthsError::MissingPart { text: text.into(), part: prefix })?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let (digits, rest) = after.split_at(end);
    match widths.iter().find(|width| width.to_string() == digits) {
        Some(width) => Ok((*width, rest)),
        None => {
            let (text, width) = (text.into(), digits.into());
            Err(ParseBitWidthsError::BadWidth { text, part: prefix, width, allowed })
        }
    }
}

impl fmt::Display for BitWidths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}a{}kv{}", self.weights, self.activations, self.kv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        text.parse::<BitWidths>().unwrap_err().to_string()
    }

    #[test]
    fn every_width_survives_a_round_trip() {
        for weights in [2, 3, 4, 8, 16] {
            for activations in [4, 8, 16] {
                for kv in [4, 8, 16] {
                    let bits = BitWidths { weights, activations, kv };
                    assert_eq!(bits.to_string().parse(), Ok(bits));
                }
            }
        }
    }

    #[test]
    fn capitals_are_read() {
        assert_eq!("W4A4KV4".parse(), Ok(BitWidths::W4A4KV4));
    }

    #[test]
    fn without_its_part_the_cache_stays_in_floating_point() {
        assert_eq!("w3a16".parse(), Ok(BitWidths { weights: 3, activations: 16, kv: 16 }));
        assert_eq!("w2a8".parse::<BitWidths>().unwrap().to_string(), "w2a8kv16");
    }

    #[test]
    fn weights_and_activations_are_required() {
        assert!(message("w4kv4").contains("lacks the part \"a\""));
        assert!(message("w4").contains("lacks the part \"a\""));
        assert!(message("").contains("lacks the part \"w\""));
        assert!(message("4").contains("lacks the part \"w\""));
        assert!(message("w4a4x4").contains("lacks the part \"kv\""));
    }

    #[test]
    fn other_widths_are_refused_with_those_that_exist() {
        assert!(message("w5a4kv4").contains("\"5\" for w: only 2, 3, 4, 8 and 16 exist"));
        assert!(message("w4a3kv4").contains("\"3\" for a: only 4, 8 and 16 exist"));
        assert!(message("w4akv4").contains("the width \"\" for a"));
        assert!(message("w4a4kv044").contains("the width \"044\" for kv"));
        assert!(message("w４a4kv4").contains("the width \"\" for w"));
    }

    #[test]
    fn nothing_may_follow() {
        assert!(message("w4a4kv4x").contains("has \"x\" after"));
    }
}
