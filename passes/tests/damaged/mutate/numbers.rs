//! Random choices, and numbers on which arithmetic goes wrong.

/// A generator of pseudo-random numbers (xorshift64, Marsaglia 2003).
pub struct Random(u64);

/// Sizes, axes and counts at which something begins or ends.
const INTEGERS: [i64; 24] = [
    0,
    1,
    -1,
    2,
    -2,
    3,
    4,
    8,
    12,
    16,
    64,
    -64,
    127,
    256,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 32,
    1 << 40,
    1 << 62,
    -(1 << 62),
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
];

const FLOATS: [f32; 12] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-5,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// An element, if there is one.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// An element to be changed, if there is one.
    pub fn pick_mut<'a, T>(&mut self, from: &'a mut [T]) -> Option<&'a mut T> {
        let index = self.below(from.len());
        from.get_mut(index)
    }

    /// Mostly a small number, sometimes one at the end of a range.
    pub fn integer(&mut self) -> i64 {
        if self.one_in(2) { self.below(9) as i64 - 3 } else { INTEGERS[self.below(INTEGERS.len())] }
    }

    /// Mostly a number that nothing can be computed with.
    pub fn float(&mut self) -> f32 {
        FLOATS[self.below(FLOATS.len())]
    }

    /// Changes a list: one element more, less, or another.
    pub fn change_list<T>(&mut self, list: &mut Vec<T>, element: impl FnOnce(&mut Self) -> T) {
        let at = self.below(list.len());
        match self.below(4) {
            0 => {
                let new = element(self);
                list.insert(at, new);
            }
            1 if !list.is_empty() => {
                list.remove(at);
            }
            _ => {
                let new = element(self);
                match list.get_mut(at) {
                    Some(old) => *old = new,
                    None => list.push(new),
                }
            }
        }
    }
}
