//! Run-time choice of the instruction set.

use std::sync::OnceLock;

/// A level of instructions that every kernel has a form for, from the plainest to the fastest.
///
/// A level above what the machine offers is lowered to the machine's best one at each call, so
/// any value is safe to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust.
    Scalar,
    /// AVX2 and FMA, 256-bit vectors.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI, 512-bit vectors.
    Avx512,
    /// [`Isa::Avx512`], and AMX int8 tiles for large integer products (bfloat16 tiles too, where
    /// the machine has them).
    Amx,
}

impl Isa {
    /// The best level of this machine, or the one named by the environment variable
    /// `PLANISH_ISA` (`scalar`, `avx2`, `avx512` or `amx`) where that is lower.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let wanted = std::env::var("PLANISH_ISA").ok().and_then(|s| Self::from_name(&s));
            wanted.unwrap_or(Isa::Amx).clamped()
        })
    }

    /// The best level of this machine, whatever the environment says.
    pub fn detected() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(detect)
    }

    /// This level, lowered to what the machine offers.
    #[inline]
    pub fn clamped(self) -> Self {
        self.min(Self::detected())
    }

    /// The level called `name` in `PLANISH_ISA`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "scalar" => Some(Isa::Scalar),
            "avx2" => Some(Isa::Avx2),
            "avx512" => Some(Isa::Avx512),
            "amx" => Some(Isa::Amx),
            _ => None,
        }
    }

    /// The levels this machine can run, plainest first.
    pub fn available() -> Vec<Self> {
        let all = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Amx];
        all.into_iter().filter(|&isa| isa <= Self::detected()).collect()
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return Isa::Scalar;
    }
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    match avx512 {
        false => Isa::Avx2,
        true if crate::amx::has_int8() => Isa::Amx,
        true => Isa::Avx512,
    }
}
