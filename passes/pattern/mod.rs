//! Patterns that read as formulas, and the matcher that says why they do not match.
//!
//! ```text
//! let x = any("x");
//! let mean_square = op("ReduceMean", [x.clone().pow(2.0)]);
//! let pattern = x * rsqrt(mean_square + scalar("epsilon")) * constant("weight");
//! ```
//!
//! A name that occurs twice must stand for the same value both times. Sums and products match in
//! either order.

mod matcher;

use std::ops;
use std::rc::Rc;

pub(crate) use matcher::as_number;
pub use matcher::{Match, Miss, match_value};

/// What a value must look like.
#[derive(Clone, Debug)]
pub struct Pattern(Rc<Kind>);

#[derive(Debug)]
enum Kind {
    /// Any value, remembered under a name.
    Any(&'static str),
    /// A constant of any shape, remembered.
    Constant(&'static str),
    /// A constant of one element, remembered.
    Scalar(&'static str),
    /// A constant whose elements all are this number (up to single precision).
    Number(f32),
    /// The first output of an operator.
    Op { op_types: Vec<&'static str>, inputs: Vec<Pattern>, commutes: bool },
    /// One of several forms.
    OneOf(Vec<Pattern>),
    /// A pattern whose value is remembered.
    Named(&'static str, Pattern),
}

impl Pattern {
    fn new(kind: Kind) -> Self {
        Self(Rc::new(kind))
    }

    /// Remembers the value under `name`.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self::new(Kind::Named(name, self))
    }

    /// This to the power of a number; for 2 and 3 also as a product.
    #[must_use]
    pub fn pow(self, exponent: f32) -> Self {
        let power = op("Pow", [self.clone(), number(exponent)]);
        let square = op("Mul", [self.clone(), self.clone()]);
        match exponent {
            2.0 => one_of([power, square]),
            3.0 => one_of([power, self * square]),
            _ => power,
        }
    }
}

/// Any value; the same one wherever the name occurs.
pub fn any(name: &'static str) -> Pattern {
    Pattern::new(Kind::Any(name))
}

/// A constant.
pub fn constant(name: &'static str) -> Pattern {
    Pattern::new(Kind::Constant(name))
}

/// A constant of one element.
pub fn scalar(name: &'static str) -> Pattern {
    Pattern::new(Kind::Scalar(name))
}

/// A constant whose elements all are `value`.
pub fn number(value: f32) -> Pattern {
    Pattern::new(Kind::Number(value))
}

/// The first output of an ONNX operator over these first inputs; further inputs may follow.
pub fn op<const N: usize>(op_type: &'static str, inputs: [Pattern; N]) -> Pattern {
    let commutes =
        N == 2 && matches!(op_type, "Add" | "Mul" | "And" | "Or" | "Equal" | "Max" | "Min");
    Pattern::new(Kind::Op { op_types: vec![op_type], inputs: inputs.into(), commutes })
}

/// One of several forms, tried in order.
pub fn one_of<const N: usize>(forms: [Pattern; N]) -> Pattern {
    Pattern::new(Kind::OneOf(forms.into()))
}

/// √x.
pub fn sqrt(x: Pattern) -> Pattern {
    one_of([op("Sqrt", [x.clone()]), op("Pow", [x, number(0.5)])])
}

/// 1/√x as `Reciprocal(Sqrt(x))`, `1 / Sqrt(x)` or `Pow(x, -0.5)`.
pub fn rsqrt(x: Pattern) -> Pattern {
    one_of([
        op("Reciprocal", [sqrt(x.clone())]),
        op("Div", [number(1.0), sqrt(x.clone())]),
        op("Pow", [x, number(-0.5)]),
    ])
}

impl ops::Add for Pattern {
    type Output = Pattern;
    fn add(self, other: Pattern) -> Pattern {
        op("Add", [self, other])
    }
}

impl ops::Sub for Pattern {
    type Output = Pattern;
    fn sub(self, other: Pattern) -> Pattern {
        op("Sub", [self, other])
    }
}

impl ops::Mul for Pattern {
    type Output = Pattern;
    fn mul(self, other: Pattern) -> Pattern {
        op("Mul", [self, other])
    }
}

impl ops::Div for Pattern {
    type Output = Pattern;
    fn div(self, other: Pattern) -> Pattern {
        op("Div", [self, other])
    }
}
