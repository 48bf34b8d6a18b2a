//! The parameters of a block while they are learned.

use planish_cpu::ThreadPool;
use planish_ir::Tensor;
use planish_passes::calibrate::{GradualMask, Parameter, ParameterId, ParameterKind};

use super::CalibrationError;
use super::adamw::Moments;
use super::recipe::Rates;

/// A parameter under way.
#[derive(Debug, Clone)]
pub struct Learning {
    /// Name of the graph input.
    pub name: String,
    /// Its role.
    pub kind: ParameterKind,
    shape: Vec<usize>,
    values: Vec<f32>,
    moments: Option<Moments>,
}

/// The parameters of a block.
#[derive(Debug, Clone, Default)]
pub struct Learner {
    parameters: Vec<Learning>,
}

impl Learner {
    /// Parameters at their start.
    ///
    /// # Errors
    /// If one is no tensor of floats.
    pub fn new(parameters: &[Parameter]) -> Result<Self, CalibrationError> {
        let learning = |parameter: &Parameter| {
            let values = parameter.initial.to_f32_vec().map_err(|error| {
                let (value, problem) = (parameter.name.clone(), error.to_string());
                CalibrationError::Value { value, problem }
            })?;
            let shape = parameter.initial.shape().to_vec();
            let (name, kind) = (parameter.name.clone(), parameter.kind);
            Ok::<_, CalibrationError>(Learning { name, kind, shape, values, moments: None })
        };
        let parameters = parameters.iter().map(learning).collect::<Result<_, _>>()?;
        Ok(Self { parameters })
    }

    /// The parameters.
    pub fn parameters(&self) -> &[Learning] {
        &self.parameters
    }

    /// The tensor of the parameter called `name`.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.parameters.iter().find(|p| p.name == name).map(Learning::tensor)
    }

    /// All tensors, in order.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.parameters.iter().map(Learning::tensor).collect()
    }

    /// Sets a parameter to values of its size.
    pub fn set(&mut self, id: ParameterId, values: &[f32]) {
        let parameter = &mut self.parameters[id.0];
        debug_assert_eq!(parameter.values.len(), values.len());
        parameter.values.copy_from_slice(values);
    }

    /// Takes over values learned before, one tensor for each parameter. Returns whether they
    /// fit.
    pub fn restore(&mut self, values: &[Vec<f32>]) -> bool {
        let fits = values.len() == self.parameters.len()
            && values.iter().zip(&self.parameters).all(|(v, p)| v.len() == p.values.len());
        if fits {
            for (parameter, values) in self.parameters.iter_mut().zip(values) {
                parameter.values.clone_from(values);
            }
        }
        fits
    }

    /// Moves every parameter that has a gradient and a rate. `factor` is what the schedule makes
    /// of the rates.
    ///
    /// # Errors
    /// If a gradient is no tensor of floats.
    pub fn step(
        &mut self,
        pool: &ThreadPool,
        rates: &Rates,
        factor: f32,
        gradients: &[Option<Tensor>],
    ) -> Result<(), CalibrationError> {
        for (parameter, gradient) in self.parameters.iter_mut().zip(gradients) {
            let rate = rates.of(parameter.kind) * factor;
            let Some(gradient) = gradient.as_ref().filter(|_| rate > 0.0) else { continue };
            let data = gradient.as_slice::<f32>().map_err(|error| CalibrationError::Value {
                value: parameter.name.clone(),
                problem: error.to_string(),
            })?;
            let n = parameter.values.len();
            let moments = parameter.moments.get_or_insert_with(|| Moments::new(n));
            moments.step(pool, rate, &mut parameter.values, &data);
        }
        Ok(())
    }

    /// Keeps all matrices strictly diagonally dominant under a gradual mask.
    pub fn keep_dominant(&mut self, stability: f32) {
        for parameter in self.parameters.iter_mut().filter(|p| p.kind == ParameterKind::Matrix) {
            GradualMask::keep_dominant(&mut parameter.values, parameter.shape[0], stability);
        }
    }

    /// Forgets the moments: what follows is another optimisation.
    pub fn forget_moments(&mut self) {
        self.parameters.iter_mut().for_each(|p| p.moments = None);
    }
}

impl Learning {
    /// The value as a tensor.
    pub fn tensor(&self) -> Tensor {
        Tensor::from_vec(&self.shape, self.values.clone())
    }

    /// The elements.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
