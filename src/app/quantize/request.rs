//! What a user asks for.
use std::path::PathBuf;

use clap::ValueEnum;
use planish_passes::quantize::{self, BitWidths, QuantizeOptions};
use serde::Serialize;

use crate::app::OpenOptions;

/// How much of the activations' range SmoothQuant moves into the weights.
const SMOOTHQUANT_ALPHA: f64 = 0.5;

/// How outliers are flattened before rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Method {
    /// No transform: round to nearest.
    Rtn,
    /// Per-channel scales between activations and weights (SmoothQuant).
    Smoothquant,
    /// Hadamard rotations (QuaRot).
    #[default]
    Hadamard,
    /// Orthogonal transforms of each site.
    Orthogonal,
    /// Learned transforms, scales and clipping at every site (FlatQuant).
    Flatquant,
    /// Learned transforms that all merge into weights, so that none runs (AffineQuant).
    Affinequant,
}

impl Method {
    /// Whether the method learns from text.
    pub fn learns(self) -> bool {
        matches!(self, Self::Flatquant | Self::Affinequant)
    }

    /// The method as the command line names it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether the method reads a calibration text.
    pub fn reads_text(self) -> bool {
        self.learns() || self == Self::Smoothquant
    }
}

/// How much time a learning method takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Effort {
    /// Minutes for a small model on two cores.
    #[default]
    Fast,
    /// Several times as much.
    Balanced,
    /// At least what the authors of the method published.
    Full,
}

/// How weights become codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Rounding {
    /// To the nearest code.
    #[default]
    Nearest,
    /// So that the outputs of the layers change least (GPTQ).
    Gptq,
}

/// Where the calibration text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationText {
    /// A text file.
    File(PathBuf),
    /// The model writes it itself.
    OwnWords,
}

/// How the quantised graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Fused nodes, each with a model-local function in standard ops.
    #[default]
    Fused,
    /// ONNX Runtime's own operators, for it and onnxruntime-genai: MatMulNBits and its like.
    #[value(name = "matmulnbits")]
    MatMulNBits,
    /// Standard operators alone: DequantizeLinear on the weights' codes.
    Qdq,
}

impl Format {
    /// The widths that are quantised to unless others are asked for.
    pub fn default_bits(self) -> BitWidths {
        match self {
            Self::Fused => BitWidths::W4A4KV4,
            Self::MatMulNBits | Self::Qdq => BitWidths { weights: 4, activations: 16, kv: 16 },
        }
    }

    /// Checks that the format has words for a request.
    ///
    /// # Errors
    /// A sentence that says what it has none for.
    pub(super) fn check(self, bits: BitWidths, group_size: Option<usize>) -> Result<(), String> {
        let (name, activations): (_, &[u8]) = match self {
            Self::Fused => return Ok(()),
            Self::MatMulNBits => ("matmulnbits", &[8, 16]),
            Self::Qdq => ("qdq", &[16]),
        };
        if !bits.quantizes_weights() {
            return Err(format!("the format {name} is for quantised weights: ask for w4 or w8"));
        }
        if !activations.contains(&bits.activations) {
            let widths: Vec<String> = activations.iter().map(|n| format!("a{n}")).collect();
            let (widths, asked) = (widths.join(" or "), bits.activations);
            return Err(format!("the format {name} has no a{asked}: ask for {widths}"));
        }
        if bits.quantizes_kv() {
            let asked = bits.kv;
            return Err(format!("the format {name} has no kv{asked}: ask for kv16"));
        }
        match group_size {
            Some(size) if self == Self::MatMulNBits && !size.is_multiple_of(16) => Err(format!(
                "the format {name} takes group sizes that are multiples of 16, and not {size}"
            )),
            _ => Ok(()),
        }
    }
}

/// A request to quantise a model.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeRequest {
    /// An `.onnx` file, or a folder with `model.onnx`.
    pub model: PathBuf,
    /// The folder to write.
    pub output: PathBuf,
    /// How outliers are flattened.
    pub method: Method,
    /// Widths of weights, activations and KV cache.
    pub bits: BitWidths,
    /// Weights that share a scale along the input channels; nothing means a whole output channel.
    pub group_size: Option<usize>,
    /// Whether the rotations of hadamard and orthogonal are only those that merge into weights.
    pub no_online: bool,
    /// Text to calibrate with; nothing means what suits the method.
    pub calibration: Option<CalibrationText>,
    /// How much time a learning method takes.
    pub effort: Effort,
    /// Changes of the effort's recipe, as (name, value).
    pub recipe: Vec<(String, String)>,
    /// Blocks that learn side by side, each on its share of the threads.
    pub workers: usize,
    /// How weights become codes.
    pub rounding: Rounding,
    /// How the result is written.
    pub format: Format,
    /// Seed of everything random.
    pub seed: u64,
    /// Device and threads; the batch is not used.
    pub open: OpenOptions,
    /// Whether weight clipping is searched for the least error.
    pub clip_search: bool,
    /// Width of the weights of the last linear layer: 4, 8 or 16.
    pub lm_head_bits: u8,
    /// Folder for the graph after every pass.
    pub dump_ir: Option<PathBuf>,
}

impl QuantizeRequest {
    /// The widths that the graph is quantised to: `MatMulNBits` rounds its activations itself.
    pub(super) fn graph_bits(&self) -> BitWidths {
        match self.format {
            Format::MatMulNBits => BitWidths { activations: 16, ..self.bits },
            Format::Fused | Format::Qdq => self.bits,
        }
    }

    /// The request in the terms of the quantising passes.
    pub(super) fn options(&self) -> QuantizeOptions {
        QuantizeOptions {
            bits: self.graph_bits(),
            method: match self.method {
                Method::Smoothquant => quantize::Method::SmoothQuant { alpha: SMOOTHQUANT_ALPHA },
                Method::Hadamard => quantize::Method::Hadamard,
                Method::Orthogonal => quantize::Method::Orthogonal,
                Method::Rtn | Method::Flatquant | Method::Affinequant => quantize::Method::Rtn,
            },
            online: !self.no_online,
            group_size: self.group_size,
            clip_search: self.clip_search,
            weighted_search: false,
            rounding: match self.rounding {
                Rounding::Nearest => quantize::Rounding::Nearest,
                Rounding::Gptq => quantize::Rounding::GPTQ,
            },
            lm_head_bits: self.lm_head_bits,
            embedding_bits: 16,
            seed: self.seed,
        }
    }
}

/// How far the work has come: `done` of `total` steps of a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage<'a> {
    /// Name of the stage, for instance "calibrate".
    pub name: &'a str,
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// The loss of the last step of a stage that learns.
    pub loss: Option<f32>,
}

impl<'a> Stage<'a> {
    /// A stage without loss.
    pub(in crate::app) fn new(name: &'a str, done: usize, total: usize) -> Self {
        Self { name, done: done as u64, total: total as u64, loss: None }
    }
}

/// What quantisation did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizeReport {
    /// The folder that was written.
    pub output: PathBuf,
    /// Linear layers that were quantised.
    pub layers: usize,
    /// Linear layers that were left as they are.
    pub layers_left: usize,
    /// Bytes of weights before.
    pub weight_bytes_before: u64,
    /// Bytes of weights after.
    pub weight_bytes_after: u64,
    /// Time taken.
    pub seconds: f64,
    /// What the user should know: layers left alone and why, fall-backs.
    pub notes: Vec<String>,
}
