//! Dimensions of which a file says nothing.

use crate::Dim;

/// The dimension that a file leaves open, the `number`-th of its graph: the symbol `$number`, so
/// that no two unknown dimensions are taken for equal.
pub fn unknown_dim(number: usize) -> Dim {
    Dim::symbol(&format!("${number}"))
}

/// Whether the dimension depends on one made by [`unknown_dim`]; such a dimension is written as
/// unknown.
pub fn is_unknown_dim(dim: &Dim) -> bool {
    dim.symbols().iter().any(|symbol| is_mark(symbol))
}

/// Whether `$` and a number stand in a symbol, alone or as a word of an expression.
fn is_mark(symbol: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    symbol.match_indices('$').any(|(i, _)| {
        !symbol[..i].ends_with(is_word) && symbol[i + 1..].starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_dimensions_are_told_from_symbols() {
        assert!(is_unknown_dim(&unknown_dim(3)));
        assert!(is_unknown_dim(&unknown_dim(3).add(&Dim::symbol("a"))));
        assert!(is_unknown_dim(&unknown_dim(3).floor_div(&Dim::from(2i64))));
        assert!(!is_unknown_dim(&Dim::symbol("a$1")));
        assert!(!is_unknown_dim(&Dim::symbol("$b")));
        assert_ne!(unknown_dim(1), unknown_dim(2));
    }
}
