//! Products of few rows, with the kernels loaded for them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::dense::DenseVariant;
use super::plan::{Shape, Variant};
use super::problem::{DenseGemv, QuantizedGemv, WeightOnlyGemv};
use super::{dense, packed};
use crate::{Function, Gpu, GpuError, Source};

/// Products of few rows, with the kernels loaded for them on one device.
#[derive(Default)]
pub struct Gemv {
    functions: Mutex<HashMap<Key, Function>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Packed(Variant),
    Dense(DenseVariant),
}

impl std::fmt::Debug for Gemv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gemv")
    }
}

impl Gemv {
    /// With no kernel loaded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Codes times packed weights.
    ///
    /// # Errors
    /// Sizes that do not go together, or if the driver refuses.
    pub fn quantized(&self, gpu: &Gpu, product: &QuantizedGemv<'_>) -> Result<(), GpuError> {
        packed::run(gpu, &product.into(), None, |variant| self.packed(gpu, variant))
    }

    /// Codes times packed weights by a given kernel, which takes that many rows.
    ///
    /// # Errors
    /// As [`Gemv::quantized`].
    pub(super) fn quantized_by(
        &self,
        gpu: &Gpu,
        product: &QuantizedGemv<'_>,
        shape: Shape,
    ) -> Result<(), GpuError> {
        packed::run(gpu, &product.into(), Some(shape), |variant| self.packed(gpu, variant))
    }

    /// Floats times packed weights.
    ///
    /// # Errors
    /// As [`Gemv::quantized`].
    pub fn weight_only(&self, gpu: &Gpu, product: &WeightOnlyGemv<'_>) -> Result<(), GpuError> {
        packed::run(gpu, &product.into(), None, |variant| self.packed(gpu, variant))
    }

    /// Floats times dense weights.
    ///
    /// # Errors
    /// As [`Gemv::quantized`].
    pub fn dense(&self, gpu: &Gpu, product: &DenseGemv) -> Result<(), GpuError> {
        dense::run(gpu, product, |variant| {
            self.function(gpu, Key::Dense(*variant), variant.kernel(), || variant.defines())
        })
    }

    fn packed(&self, gpu: &Gpu, variant: &Variant) -> Result<Function, GpuError> {
        self.function(gpu, Key::Packed(*variant), packed::kernel(variant), || variant.defines())
    }

    fn function(
        &self,
        gpu: &Gpu,
        key: Key,
        (source, entry): (&'static Source, &str),
        defines: impl Fn() -> Vec<(&'static str, String)>,
    ) -> Result<Function, GpuError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&key) {
            return Ok(function.clone());
        }
        let defines = defines();
        let defines: Vec<(&str, &str)> = defines.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let function = gpu.function(source, entry, &defines)?;
        functions.insert(key, function.clone());
        Ok(function)
    }
}
