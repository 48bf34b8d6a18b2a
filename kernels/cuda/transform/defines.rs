//! Definitions that a kernel is compiled with.

use crate::{Element, Function, Gpu, GpuError, Source};

/// Names and values.
#[derive(Default)]
pub(super) struct Defines(Vec<(&'static str, String)>);

impl Defines {
    /// With the type of tensors.
    pub fn of(element: Element) -> Self {
        Self::default().text(element.define().0, element.define().1)
    }

    /// With the type of the factors.
    pub fn factors(self, element: Element) -> Self {
        self.text("FACTOR_T", element.define().1)
    }

    pub fn set(self, name: &'static str, value: usize) -> Self {
        self.text(name, value.to_string())
    }

    pub fn flag(self, name: &'static str, value: bool) -> Self {
        self.set(name, usize::from(value))
    }

    fn text(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The kernel compiled with them.
    pub fn compile(
        &self,
        gpu: &Gpu,
        source: &'static Source,
        entry: &str,
    ) -> Result<Function, GpuError> {
        let defines: Vec<(&str, &str)> = self.0.iter().map(|(k, v)| (*k, v.as_str())).collect();
        gpu.function(source, entry, &defines)
    }
}
