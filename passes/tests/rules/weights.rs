//! Random numbers for initializers and inputs.

use std::hash::{DefaultHasher, Hash, Hasher};

const PLACEHOLDER: &str = "{random}";

/// `n` numbers between -1 and 1 that depend only on `seed` (xorshift, Marsaglia 2003).
pub fn random(seed: &str, n: usize) -> Vec<f32> {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let mut state = hasher.finish() | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The text with numbers in the place of every `{random}` after `float[sizes] name =` (or
/// `float16`).
pub fn fill(text: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(PLACEHOLDER) {
        let (head, tail) = rest.split_at(at);
        filled.push_str(head);
        filled.push_str(&data(head));
        rest = &tail[PLACEHOLDER.len()..];
    }
    filled + rest
}

/// `{0.5, …}` for the declaration at the end of `head`.
fn data(head: &str) -> String {
    let start = head.rfind("float").expect("{random} is for float[…] and float16[…]");
    let (_, declared) = head[start..].split_once('[').expect("a bracket");
    let (sizes, name) = declared.split_once(']').expect("a closed bracket");
    let n: usize = sizes.split(',').map(|size| size.trim().parse::<usize>().unwrap()).product();
    let name = name.trim_end_matches(['=', ' ']).trim();
    let numbers: Vec<String> = random(name, n).iter().map(|x| format!("{x:?}")).collect();
    format!("{{{}}}", numbers.join(", "))
}
