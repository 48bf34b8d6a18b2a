//! Symbolic dimensions: integer polynomials over named symbols.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A size that may depend on symbols: an integer polynomial in normal form, so equal dimensions
/// compare equal however they were computed. What is no polynomial (floor division, maximum,
/// values known only at run time, numbers beyond 64 bits) is a symbol of its own with a telling name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Const(i64),
    /// Products of symbols (sorted) to their coefficients; never a constant alone, no zeros.
    Poly(Arc<BTreeMap<Monomial, i64>>),
}

type Monomial = Vec<Arc<str>>;

impl Dim {
    /// The symbol `name`.
    pub fn symbol(name: &str) -> Self {
        Self::from_terms(BTreeMap::from([(vec![Arc::from(name)], 1)]))
    }

    /// Reads ONNX's `dim_param`: a symbol, a number, or an expression with `+ - * // % ( )`,
    /// `max(…)`, `min(…)`. Anything else is a symbol as a whole.
    pub fn parse(text: &str) -> Self {
        crate::dim_parse::parse(text).unwrap_or_else(|| Self::symbol(text))
    }

    /// The number, if there is no symbol in it.
    pub fn as_const(&self) -> Option<i64> {
        if let Repr::Const(value) = self.0 { Some(value) } else { None }
    }

    /// The number as a size, if there is no symbol in it and it is not negative.
    pub fn as_usize(&self) -> Option<usize> {
        self.as_const().and_then(|value| usize::try_from(value).ok())
    }

    fn terms(&self) -> BTreeMap<Monomial, i64> {
        match &self.0 {
            Repr::Const(0) => BTreeMap::new(),
            Repr::Const(value) => BTreeMap::from([(Vec::new(), *value)]),
            Repr::Poly(terms) => terms.as_ref().clone(),
        }
    }

    fn from_terms(mut terms: BTreeMap<Monomial, i64>) -> Self {
        terms.retain(|_, coefficient| *coefficient != 0);
        match terms.len() {
            0 => Self(Repr::Const(0)),
            1 if terms.contains_key(&Vec::new()) => Self(Repr::Const(terms[&Vec::new()])),
            _ => Self(Repr::Poly(Arc::new(terms))),
        }
    }

    /// What it is the sum of: a number, and products of symbols times a number each.
    pub fn summands(&self) -> Vec<Self> {
        let terms = self.terms().into_iter();
        terms.map(|(monomial, n)| Self::from_terms(BTreeMap::from([(monomial, n)]))).collect()
    }

    /// Sum.
    #[must_use]
    pub fn add(&self, other: &Self) -> Self {
        let sum = match (&self.0, &other.0) {
            (Repr::Const(a), Repr::Const(b)) => a.checked_add(*b).map(Self::from),
            _ => sum_of([self.terms(), other.terms()].into_iter().flatten()),
        };
        sum.unwrap_or_else(|| Self::symbol(&format!("({self})+({other})")))
    }

    /// Difference.
    #[must_use]
    pub fn sub(&self, other: &Self) -> Self {
        self.add(&other.mul(&Self::from(-1i64)))
    }

    /// Product.
    #[must_use]
    pub fn mul(&self, other: &Self) -> Self {
        let product = match (&self.0, &other.0) {
            (Repr::Const(a), Repr::Const(b)) => a.checked_mul(*b).map(Self::from),
            _ => product_of(&self.terms(), &other.terms()),
        };
        product.unwrap_or_else(|| Self::symbol(&format!("({self})*({other})")))
    }

    /// The quotient if `other` divides this exactly, whatever the symbols are.
    pub fn div_exact(&self, other: &Self) -> Option<Self> {
        if self == other && self.as_const() != Some(0) {
            return Some(Self::from(1i64));
        }
        let divisor = other.terms();
        let (monomial, coefficient) = match divisor.len() {
            1 => divisor.into_iter().next()?,
            _ => return self.div_by_sum(other),
        };
        let mut terms = BTreeMap::new();
        for (left, a) in self.terms() {
            terms.insert(remove_factors(&left, &monomial)?, exact_quotient(a, coefficient)?);
        }
        Some(Self::from_terms(terms))
    }

    /// Division by a sum: tries the quotients that the leading terms suggest.
    fn div_by_sum(&self, other: &Self) -> Option<Self> {
        let (dividend, divisor) = (self.terms(), other.terms());
        let (lead, b) = divisor.iter().next_back()?;
        let (first, a) = dividend.iter().next_back()?;
        let quotient = (remove_factors(first, lead)?, exact_quotient(*a, *b)?);
        let quotient = Self::from_terms(BTreeMap::from([quotient]));
        (quotient.mul(other) == *self).then_some(quotient)
    }

    /// Quotient rounded down; exact where possible, else a symbol of its own.
    #[must_use]
    pub fn floor_div(&self, other: &Self) -> Self {
        let numbers = self.as_const().zip(other.as_const());
        numbers
            .and_then(|(a, b)| a.checked_div_euclid(b).map(Self::from))
            .or_else(|| self.div_exact(other))
            .unwrap_or_else(|| Self::symbol(&format!("({self})//({other})")))
    }

    /// Remainder; a symbol of its own where it can't be known.
    #[must_use]
    pub fn modulo(&self, other: &Self) -> Self {
        let numbers = self.as_const().zip(other.as_const());
        numbers
            .and_then(|(a, b)| a.checked_rem_euclid(b).map(Self::from))
            .or_else(|| self.div_exact(other).map(|_| Self::from(0i64)))
            .unwrap_or_else(|| Self::symbol(&format!("({self})%({other})")))
    }

    /// Maximum. Symbols are sizes, hence not negative: `max(a, a + b) = a + b`.
    #[must_use]
    pub fn maximum(&self, other: &Self) -> Self {
        if self.sub(other).is_surely_non_negative() {
            self.clone()
        } else if other.sub(self).is_surely_non_negative() {
            other.clone()
        } else {
            let (a, b) = if self < other { (self, other) } else { (other, self) };
            Self::symbol(&format!("max({a}, {b})"))
        }
    }

    /// Minimum, as [`Dim::maximum`].
    #[must_use]
    pub fn minimum(&self, other: &Self) -> Self {
        if self.sub(other).is_surely_non_negative() {
            other.clone()
        } else if other.sub(self).is_surely_non_negative() {
            self.clone()
        } else {
            let (a, b) = if self < other { (self, other) } else { (other, self) };
            Self::symbol(&format!("min({a}, {b})"))
        }
    }

    /// Whether this is at least 0 for all non-negative values of the symbols, as far as the
    /// signs of the coefficients tell.
    pub fn is_surely_non_negative(&self) -> bool {
        self.terms().values().all(|coefficient| *coefficient >= 0)
    }

    /// The value under a binding of the symbols; `None` if one is unbound, or the value beyond 64 bits.
    pub fn eval(&self, binding: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        self.terms().iter().try_fold(0i64, |sum, (monomial, coefficient)| {
            let product = monomial
                .iter()
                .try_fold(*coefficient, |p, symbol| p.checked_mul(eval_symbol(symbol, binding)?))?;
            sum.checked_add(product)
        })
    }

    /// The symbols that occur, sorted.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let mut symbols: Vec<_> = self.terms().into_keys().flatten().collect();
        symbols.sort();
        symbols.dedup();
        symbols
    }
}

/// The sum of products of symbols, if the coefficients fit 64 bits.
fn sum_of(all: impl Iterator<Item = (Monomial, i64)>) -> Option<Dim> {
    let mut terms: BTreeMap<Monomial, i64> = BTreeMap::new();
    for (monomial, coefficient) in all {
        let sum = terms.entry(monomial).or_insert(0);
        *sum = sum.checked_add(coefficient)?;
    }
    Some(Dim::from_terms(terms))
}

/// The product of two sums, if the coefficients fit 64 bits.
fn product_of(a: &BTreeMap<Monomial, i64>, b: &BTreeMap<Monomial, i64>) -> Option<Dim> {
    let mut products = Vec::with_capacity(a.len() * b.len());
    for (left, x) in a {
        for (right, y) in b {
            let mut monomial: Monomial = left.iter().chain(right).cloned().collect();
            monomial.sort();
            products.push((monomial, x.checked_mul(*y)?));
        }
    }
    sum_of(products.into_iter())
}

fn exact_quotient(a: i64, b: i64) -> Option<i64> {
    (a.checked_rem(b)? == 0).then(|| a / b)
}

/// The binding of a symbol, or, for one that stands for an expression, the value of that.
fn eval_symbol(symbol: &str, binding: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
    binding(symbol).or_else(|| crate::dim_parse::eval(symbol, binding))
}

/// `from` without the factors of `factors`, if all are there.
fn remove_factors(from: &Monomial, factors: &Monomial) -> Option<Monomial> {
    let mut rest = from.clone();
    for factor in factors {
        let position = rest.iter().position(|s| s == factor)?;
        rest.remove(position);
    }
    Some(rest)
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Self(Repr::Const(value))
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Self(Repr::Const(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repr::Poly(terms) = &self.0 else {
            return write!(f, "{}", self.as_const().unwrap_or_default());
        };
        // Symbols before the constant, as exporters write it.
        let symbolic = terms.iter().filter(|(m, _)| !m.is_empty());
        let constant = terms.iter().filter(|(m, _)| m.is_empty());
        for (i, (monomial, coefficient)) in symbolic.chain(constant).enumerate() {
            let sign = match (i, *coefficient < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            f.write_str(sign)?;
            let size = coefficient.unsigned_abs();
            if monomial.is_empty() || size != 1 {
                write!(f, "{size}")?;
                if !monomial.is_empty() {
                    f.write_str("*")?;
                }
            }
            f.write_str(&monomial.join("*"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_compare_equal() {
        let (past, seq) = (Dim::symbol("past"), Dim::symbol("seq"));
        assert_eq!(past.add(&seq), Dim::parse("seq + past"));
        assert_eq!(past.add(&seq).sub(&past), seq);
        assert_eq!(Dim::parse("2*(a + b)"), Dim::parse("a + b + a + b"));
        assert_ne!(Dim::parse("a"), Dim::parse("b"));
        assert_eq!(Dim::parse("16"), Dim::from(16i64));
    }

    #[test]
    fn exact_division_sees_through_products() {
        let total = Dim::parse("batch*seq*576");
        assert_eq!(total.div_exact(&Dim::parse("batch*64")), Some(Dim::parse("9*seq")));
        assert_eq!(Dim::parse("3*(a + b)").div_exact(&Dim::parse("a + b")), Some(Dim::from(3i64)));
        assert_eq!(Dim::parse("a").div_exact(&Dim::from(2i64)), None);
    }

    #[test]
    fn what_is_no_polynomial_can_still_be_evaluated() {
        let half = Dim::parse("a").floor_div(&Dim::from(2i64));
        assert_eq!(half.eval(&|s| (s == "a").then_some(7)), Some(3));
        let larger = Dim::parse("a").maximum(&Dim::parse("b"));
        assert_eq!(larger.eval(&|s| Some(if s == "a" { 2 } else { 5 })), Some(5));
        assert_eq!(Dim::parse("a").maximum(&Dim::parse("a + b")), Dim::parse("a + b"));
        assert_eq!(half.eval(&|_| None), None);
    }

    #[test]
    fn numbers_beyond_64_bits_are_symbols() {
        let (most, one) = (Dim::from(i64::MAX), Dim::from(1i64));
        let beyond = most.add(&one);
        assert_eq!(beyond.as_const(), None);
        assert_eq!(Dim::parse(&beyond.to_string()), beyond);
        assert_eq!(beyond.eval(&|_| None), None);
        let squares = [most.mul(&most), Dim::parse("9223372036854775807*a").mul(&Dim::from(2i64))];
        assert!(squares.iter().all(|square| square.as_const().is_none()));
        assert_eq!(squares[1].eval(&|s| (s == "a").then_some(1)), None);
        let least = Dim::from(i64::MIN);
        assert_eq!(least.floor_div(&Dim::from(-1i64)).as_const(), None);
        assert_eq!(least.modulo(&Dim::from(-1i64)).as_const(), None);
        assert_eq!(Dim::symbol("a").sub(&least).eval(&|s| (s == "a").then_some(0)), None);
    }

    #[test]
    fn printing_and_reading_agree() {
        for text in ["a + b", "2*a*b - 3", "past_sequence_length + sequence_length", "(a)//(2) + 1"]
        {
            let dim = Dim::parse(text);
            assert_eq!(Dim::parse(&dim.to_string()), dim, "{text}");
        }
    }
}
