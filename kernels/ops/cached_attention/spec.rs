//! The attributes of `CachedAttention`.

use planish_cpu::{Clip, KvFormat, KvSpec};

use crate::ops::support::quant::Quantiser;
use crate::{OpError, OpNode};

/// The attributes, checked.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    pub layer: usize,
    pub q_heads: usize,
    pub kv_heads: usize,
    /// Factor on the scores; 0 for 1/√d.
    scale: f32,
    pub softcap: f32,
    pub is_causal: bool,
    /// Keys that a query sees, itself included; 0 for all.
    pub window: usize,
    pub kv_bits: u32,
    pub key_clip: Clip,
    pub value_clip: Clip,
}

impl Spec {
    /// Reads `layer`, `q_num_heads`, `kv_num_heads`, `scale`, `softcap`, `is_causal` (1),
    /// `window`, `kv_bits` (4, 8 or 32) and `key_clip_min`, `key_clip_max`, `value_clip_min`,
    /// `value_clip_max` (1).
    pub fn read(op: &OpNode) -> Result<Self, OpError> {
        let size = |name, default| {
            usize::try_from(op.node.int(name, default))
                .map_err(|_| OpError::unsupported(format!("{name} must not be negative")))
        };
        let clip = |min, max| Clip { min: op.node.float(min, 1.0), max: op.node.float(max, 1.0) };
        let spec = Self {
            layer: size("layer", 0)?,
            q_heads: size("q_num_heads", 0)?,
            kv_heads: size("kv_num_heads", 0)?,
            scale: op.node.float("scale", 0.0),
            softcap: op.node.float("softcap", 0.0),
            is_causal: op.node.int("is_causal", 1) != 0,
            window: size("window", 0)?,
            kv_bits: u32::try_from(op.node.int("kv_bits", 32)).unwrap_or(0),
            key_clip: clip("key_clip_min", "key_clip_max"),
            value_clip: clip("value_clip_min", "value_clip_max"),
        };
        if spec.kv_heads == 0 || !spec.q_heads.is_multiple_of(spec.kv_heads) {
            return Err(OpError::unsupported("q_num_heads is no multiple of kv_num_heads"));
        }
        match spec.kv_bits {
            4 | 8 | 32 => Ok(spec),
            bits => Err(OpError::unsupported(format!("kv_bits {bits}; 4, 8 and 32 are possible"))),
        }
    }

    /// The factor on the scores of heads of `size` channels.
    pub fn scale_for(&self, size: usize) -> f32 {
        if self.scale == 0.0 { 1.0 / (size as f32).sqrt() } else { self.scale }
    }

    /// How keys are quantised, if they are.
    pub fn keys(&self) -> Option<Quantiser> {
        self.quantiser(self.key_clip)
    }

    /// How values are quantised, if they are.
    pub fn values(&self) -> Option<Quantiser> {
        self.quantiser(self.value_clip)
    }

    fn quantiser(&self, clip: Clip) -> Option<Quantiser> {
        let bits = Some(self.kv_bits).filter(|bits| *bits < 32)?;
        Some(Quantiser { bits, clip_min: clip.min, clip_max: clip.max })
    }

    /// The cache for heads of `size` channels.
    pub fn cache(&self, size: usize) -> KvSpec {
        let format = |clip| match self.kv_bits {
            4 => KvFormat::Int4(clip),
            8 => KvFormat::Int8(clip),
            _ => KvFormat::F32,
        };
        KvSpec {
            n_kv_heads: self.kv_heads,
            head_dim: size,
            keys: format(self.key_clip),
            values: format(self.value_clip),
        }
    }
}
