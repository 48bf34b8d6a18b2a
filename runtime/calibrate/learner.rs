//! The parameters of a block while they are learned.

use planish_ir::Tensor;
use planish_passes::calibrate::{GradualMask, Parameter, ParameterId, ParameterKind};

use super::recipe::Rates;
use super::{CalibrationError, floats};
use crate::engine::{Device, Moved, Optimizer, Value};

/// A parameter under way.
pub struct Learning {
    /// Name of the graph input.
    pub name: String,
    /// Its role.
    pub kind: ParameterKind,
    /// Its value, where the engine keeps tensors; in the same memory all the time.
    value: Value,
}

/// The parameters of a block.
#[derive(Default)]
pub struct Learner {
    parameters: Vec<Learning>,
    optimizer: Option<Box<dyn Optimizer>>,
}

impl Learner {
    /// Parameters at their start.
    ///
    /// # Errors
    /// If one is no tensor of floats, or there is no memory.
    pub fn new(device: &dyn Device, parameters: &[Parameter]) -> Result<Self, CalibrationError> {
        let learning = |parameter: &Parameter| {
            let start = floats(&parameter.initial, &parameter.name)?;
            let start = Tensor::from_vec(parameter.initial.shape(), start);
            let (name, kind) = (parameter.name.clone(), parameter.kind);
            Ok::<_, CalibrationError>(Learning { name, kind, value: device.upload(&start)? })
        };
        let parameters = parameters.iter().map(learning).collect::<Result<_, _>>()?;
        Ok(Self { parameters, optimizer: None })
    }

    /// The names of the parameters.
    pub fn names(&self) -> Vec<String> {
        self.parameters.iter().map(|p| p.name.clone()).collect()
    }

    /// The value of the parameter called `name`.
    pub fn value(&self, name: &str) -> Option<Value> {
        self.parameters.iter().find(|p| p.name == name).map(|p| p.value.clone())
    }

    /// All tensors in host memory, in order.
    ///
    /// # Errors
    /// If the device failed.
    pub fn tensors(&self, device: &dyn Device) -> Result<Vec<Tensor>, CalibrationError> {
        self.parameters.iter().map(|p| Ok(device.download(&p.value)?)).collect()
    }

    /// Sets a parameter to values of its size.
    ///
    /// # Errors
    /// If the device failed.
    pub fn set(
        &mut self,
        device: &dyn Device,
        id: ParameterId,
        values: &[f32],
    ) -> Result<(), CalibrationError> {
        self.parameters[id.0].set(device, values)
    }

    /// Takes over values learned before, one tensor for each parameter. Returns whether they
    /// fit.
    ///
    /// # Errors
    /// If the device failed.
    pub fn restore(
        &mut self,
        device: &dyn Device,
        values: &[Vec<f32>],
    ) -> Result<bool, CalibrationError> {
        let fits = values.len() == self.parameters.len()
            && values.iter().zip(&self.parameters).all(|(v, p)| v.len() == p.n_elements());
        if fits {
            for (parameter, values) in self.parameters.iter_mut().zip(values) {
                parameter.set(device, values)?;
            }
        }
        Ok(fits)
    }

    /// Moves every parameter that has a gradient and a rate. `factor` is what the schedule makes
    /// of the rates.
    ///
    /// # Errors
    /// If the device failed.
    pub fn step(
        &mut self,
        device: &dyn Device,
        rates: &Rates,
        factor: f32,
        gradients: &[Option<Value>],
    ) -> Result<(), CalibrationError> {
        let optimizer = match &mut self.optimizer {
            Some(optimizer) => optimizer,
            none => {
                let sizes: Vec<usize> = self.parameters.iter().map(Learning::n_elements).collect();
                none.insert(device.adamw(&sizes)?)
            }
        };
        let tensors = self.parameters.iter_mut().zip(gradients).map(|(parameter, gradient)| {
            let rate = rates.of(parameter.kind);
            let gradient = gradient.as_ref().filter(|_| rate > 0.0);
            Moved { value: &mut parameter.value, gradient, rate }
        });
        optimizer.step(&mut tensors.collect::<Vec<_>>(), factor)?;
        Ok(())
    }

    /// Keeps all matrices strictly diagonally dominant under a gradual mask.
    ///
    /// # Errors
    /// If the device failed.
    pub fn keep_dominant(
        &mut self,
        device: &dyn Device,
        stability: f32,
    ) -> Result<(), CalibrationError> {
        for parameter in self.parameters.iter_mut().filter(|p| p.kind == ParameterKind::Matrix) {
            let tensor = device.download(&parameter.value)?;
            let mut values = floats(&tensor, &parameter.name)?;
            if GradualMask::keep_dominant(&mut values, tensor.shape()[0], stability) > 0 {
                parameter.set(device, &values)?;
            }
        }
        Ok(())
    }

    /// Forgets the moments: what follows is another optimisation.
    pub fn forget_moments(&mut self) {
        self.optimizer = None;
    }
}

impl Learning {
    fn n_elements(&self) -> usize {
        self.value.shape().iter().product()
    }

    fn set(&mut self, device: &dyn Device, values: &[f32]) -> Result<(), CalibrationError> {
        let tensor = Tensor::from_vec(self.value.shape(), values.to_vec());
        Ok(device.write(&mut self.value, &tensor)?)
    }
}
