//! Reading the expressions that stand in ONNX's `dim_param`.

use crate::Dim;

/// Depth of parentheses beyond which a text is taken as a plain symbol.
const MAX_DEPTH: usize = 64;

/// The dimension that `text` says, or `None` if it is no expression.
pub(crate) fn parse(text: &str) -> Option<Dim> {
    let mut parser = Parser { rest: text.trim(), depth: 0, ops: &SymbolicOps };
    let dim = parser.sum()?;
    parser.rest.is_empty().then_some(dim)
}

/// The value of a symbol that stands for a floor division, remainder, maximum or minimum.
pub(crate) fn eval(text: &str, binding: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
    if text.chars().all(is_symbol_char) {
        return None;
    }
    let mut parser = Parser { rest: text, depth: 0, ops: &NumericOps(binding) };
    let value = parser.sum()?;
    parser.rest.is_empty().then_some(value)
}

fn is_symbol_char(c: char) -> bool {
    c.is_alphanumeric() || "_.:/$@".contains(c)
}

/// What the parser builds: dimensions, or numbers under a binding.
trait Ops {
    type Out;
    fn number(&self, value: i64) -> Option<Self::Out>;
    fn symbol(&self, name: &str) -> Option<Self::Out>;
    fn binary(&self, op: &str, a: Self::Out, b: Self::Out) -> Option<Self::Out>;
}

struct SymbolicOps;

impl Ops for SymbolicOps {
    type Out = Dim;

    fn number(&self, value: i64) -> Option<Dim> {
        Some(Dim::from(value))
    }

    fn symbol(&self, name: &str) -> Option<Dim> {
        Some(Dim::symbol(name))
    }

    fn binary(&self, op: &str, a: Dim, b: Dim) -> Option<Dim> {
        Some(match op {
            "+" => a.add(&b),
            "-" => a.sub(&b),
            "*" => a.mul(&b),
            "//" | "/" => a.floor_div(&b),
            "%" => a.modulo(&b),
            "max" => a.maximum(&b),
            "min" => a.minimum(&b),
            _ => return None,
        })
    }
}

struct NumericOps<'a>(&'a dyn Fn(&str) -> Option<i64>);

impl Ops for NumericOps<'_> {
    type Out = i64;

    fn number(&self, value: i64) -> Option<i64> {
        Some(value)
    }

    fn symbol(&self, name: &str) -> Option<i64> {
        (self.0)(name)
    }

    fn binary(&self, op: &str, a: i64, b: i64) -> Option<i64> {
        Some(match op {
            "+" => a.checked_add(b)?,
            "-" => a.checked_sub(b)?,
            "*" => a.checked_mul(b)?,
            "//" | "/" => a.checked_div_euclid(b)?,
            "%" => a.checked_rem_euclid(b)?,
            "max" => a.max(b),
            "min" => a.min(b),
            _ => return None,
        })
    }
}

struct Parser<'a, O> {
    rest: &'a str,
    depth: usize,
    ops: &'a O,
}

impl<O: Ops> Parser<'_, O> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn chain(
        &mut self,
        operators: &[&'static str],
        next: fn(&mut Self) -> Option<O::Out>,
    ) -> Option<O::Out> {
        let mut left = next(self)?;
        while let Some(op) = operators.iter().find(|op| self.rest.starts_with(**op)) {
            self.eat(op);
            let right = next(self)?;
            left = self.ops.binary(op, left, right)?;
        }
        Some(left)
    }

    fn sum(&mut self) -> Option<O::Out> {
        self.chain(&["+", "-"], Self::product)
    }

    fn product(&mut self) -> Option<O::Out> {
        self.chain(&["*", "//", "/", "%"], Self::atom)
    }

    fn atom(&mut self) -> Option<O::Out> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let value = self.atom_inner();
        self.depth -= 1;
        value
    }

    fn atom_inner(&mut self) -> Option<O::Out> {
        if self.eat("-") {
            let zero = self.ops.number(0)?;
            let value = self.atom()?;
            return self.ops.binary("-", zero, value);
        }
        if self.eat("(") {
            let value = self.sum()?;
            return self.eat(")").then_some(value);
        }
        let end = self.rest.find(|c: char| !is_word_char(c)).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        if word.is_empty() {
            return None;
        }
        self.rest = self.rest[end..].trim_start();
        if matches!(word.to_ascii_lowercase().as_str(), "max" | "min") && self.eat("(") {
            return self.arguments(&word.to_ascii_lowercase());
        }
        if word.chars().all(|c| c.is_ascii_digit()) {
            return self.ops.number(word.parse().ok()?);
        }
        self.ops.symbol(word)
    }

    fn arguments(&mut self, function: &str) -> Option<O::Out> {
        let mut value = self.sum()?;
        while self.eat(",") {
            let next = self.sum()?;
            value = self.ops.binary(function, value, next)?;
        }
        self.eat(")").then_some(value)
    }
}

/// Characters of a symbol inside an expression; `/` there means division.
fn is_word_char(c: char) -> bool {
    c != '/' && is_symbol_char(c)
}
