//! The widths of weights, activations and KV cache, written as in the papers: `w4a4kv4`.
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Widths in bits; 16 means "left in floating point".
///
/// The spelling is the one of the literature (QuaRot, SpinQuant, FlatQuant): `w4a4kv4` means 4-bit
/// weights, 4-bit activations and a 4-bit KV cache. All three parts are required.
///
/// ```
/// use planish_passes::quantize::BitWidths;
/// let bits: BitWidths = "w4a8kv16".parse().unwrap();
/// assert_eq!((bits.weights, bits.activations, bits.kv), (4, 8, 16));
/// assert_eq!(bits.to_string(), "w4a8kv16");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BitWidths {
    /// Bits of a weight of a linear layer: 4, 8 or 16.
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
    /// A part has a width other than 4, 8 or 16.
    #[error("\"{text}\" has the width \"{width}\" for {part}: only 4, 8 and 16 exist")]
    BadWidth {
        /// The text that was parsed.
        text: String,
        /// The prefix of the part.
        part: &'static str,
        /// What stands after the prefix.
        width: String,
    },
    /// Something follows the three parts.
    #[error("\"{text}\" has \"{rest}\" after its three parts: widths are written like w4a4kv4")]
    Trailing {
        /// The text that was parsed.
        text: String,
        /// What follows.
        rest: String,
    },
}

impl FromStr for BitWidths {
    type Err = ParseBitWidthsError;

    /// Parses `w{4,8,16}a{4,8,16}kv{4,8,16}`, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let (weights, rest) = part(text, &lower, "w")?;
        let (activations, rest) = part(text, rest, "a")?;
        let (kv, rest) = part(text, rest, "kv")?;
        if !rest.is_empty() {
            return Err(ParseBitWidthsError::Trailing { text: text.into(), rest: rest.into() });
        }
        Ok(Self { weights, activations, kv })
    }
}

/// Takes `prefix` and a width off the front of `rest`; returns the width and what follows.
fn part<'a>(
    text: &str,
    rest: &'a str,
    prefix: &'static str,
) -> Result<(u8, &'a str), ParseBitWidthsError> {
    let after = rest
        .strip_prefix(prefix)
        .ok_or_else(|| ParseBitWidthsError::MissingPart { text: text.into(), part: prefix })?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let (digits, rest) = after.split_at(end);
    let width = match digits {
        "4" => 4,
        "8" => 8,
        "16" => 16,
        _ => {
            let (text, width) = (text.into(), digits.into());
            return Err(ParseBitWidthsError::BadWidth { text, part: prefix, width });
        }
    };
    Ok((width, rest))
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
        for weights in [4, 8, 16] {
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
    fn all_three_parts_are_required() {
        assert!(message("w4a4").contains("lacks the part \"kv\""));
        assert!(message("w4kv4").contains("lacks the part \"a\""));
        assert!(message("").contains("lacks the part \"w\""));
        assert!(message("4").contains("lacks the part \"w\""));
    }

    #[test]
    fn only_4_8_and_16_are_widths() {
        assert!(message("w3a4kv4").contains("the width \"3\" for w"));
        assert!(message("w4akv4").contains("the width \"\" for a"));
        assert!(message("w4a4kv044").contains("the width \"044\" for kv"));
        assert!(message("w４a4kv4").contains("the width \"\" for w"));
    }

    #[test]
    fn nothing_may_follow() {
        assert!(message("w4a4kv4x").contains("has \"x\" after"));
    }
}
