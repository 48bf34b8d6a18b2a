//! Running a plan.

use std::sync::Arc;
use std::time::Instant;

use planish_cpu::{KvCache, ThreadPool};
use planish_ir::Tensor;
use planish_kernels::buffers::BufferPool;
use planish_kernels::{CpuContext, OpError};

use super::device::host;
use super::plan::{Plan, Step};
use crate::engine::{EngineError, Profile, Session, Value};

/// The changing part of a plan.
pub(super) struct CpuSession {
    plan: Arc<Plan>,
    pool: Arc<ThreadPool>,
    buffers: BufferPool,
    slots: Vec<Option<Tensor>>,
    caches: Vec<Vec<KvCache>>,
    marked: Mark,
    /// Runs and nanoseconds of every step; empty unless they are measured.
    times: Vec<(u64, u64)>,
}

/// What [`Session::rollback`] returns to.
#[derive(Default)]
struct Mark {
    carried: Vec<Option<Tensor>>,
    /// Positions in every cache.
    lengths: Vec<Vec<usize>>,
}

impl CpuSession {
    pub fn new(plan: Arc<Plan>, pool: Arc<ThreadPool>) -> Self {
        let mut slots = vec![None; plan.n_slots];
        for (slot, tensor) in &plan.constants {
            slots[*slot as usize] = Some(tensor.clone());
        }
        let times = if plan.profile { vec![(0, 0); plan.steps.len()] } else { Vec::new() };
        let buffers = plan.buffers.clone().unwrap_or_default();
        Self { plan, pool, buffers, slots, caches: Vec::new(), marked: Mark::default(), times }
    }

    fn check_inputs(&self, inputs: &[Tensor]) -> Result<(), EngineError> {
        let (expected, got) = (self.plan.inputs.len(), inputs.len());
        if expected != got {
            return Err(EngineError::InputCount { expected, got });
        }
        self.plan.inputs.iter().zip(inputs).try_for_each(|(info, tensor)| info.check(tensor))
    }

    fn run_steps(&mut self) -> Result<(), EngineError> {
        let plan = self.plan.clone();
        let mut start = Instant::now();
        for (index, step) in plan.steps.iter().enumerate() {
            self.run_step(step)?;
            if let Some((count, nanos)) = self.times.get_mut(index) {
                let end = Instant::now();
                *count += 1;
                *nanos += (end - start).as_nanos() as u64;
                start = end;
            }
        }
        Ok(())
    }

    fn run_step(&mut self, step: &Step) -> Result<(), EngineError> {
        let mut context = CpuContext::new(&self.pool, &self.buffers, &mut self.caches);
        context.precision = self.plan.precision;
        let results = step
            .action
            .run(&mut context, &self.slots, &step.inputs)
            .map_err(|error| EngineError::Run { node: step.node.clone(), error })?;
        // A reader of an output that is not there would take its input for one that may be absent.
        if step.outputs.iter().skip(results.len()).any(Option::is_some) {
            let error = OpError::unsupported("it lists more outputs than its operator has");
            return Err(EngineError::Run { node: step.node.clone(), error });
        }
        for (slot, tensor) in step.outputs.iter().zip(results) {
            if let Some(slot) = slot {
                self.slots[*slot as usize] = Some(tensor);
            }
        }
        for slot in &step.frees {
            self.slots[*slot as usize] = None;
        }
        Ok(())
    }

    fn take_outputs(&mut self) -> Result<Vec<Tensor>, EngineError> {
        let plan = self.plan.clone();
        let read = |(slot, info): (&u32, &super::IoInfo)| {
            let tensor = self.slots[*slot as usize].clone();
            tensor.ok_or_else(|| EngineError::NoOutput(info.name.clone()))
        };
        let outputs =
            plan.output_slots.iter().zip(&plan.outputs).map(read).collect::<Result<_, _>>();
        let outputs: Vec<Tensor> = outputs?;
        for (input, output) in &plan.carried {
            self.slots[*input as usize] = self.slots[*output as usize].clone();
        }
        Ok(outputs)
    }

    /// Drops what a run leaves behind: inputs, outputs, and, after an error, everything between.
    fn clear(&mut self) {
        let plan = self.plan.clone();
        let between = plan.steps.iter().flat_map(|step| step.outputs.iter().flatten());
        for slot in between.chain(&plan.input_slots) {
            self.slots[*slot as usize] = None;
        }
    }
}

impl Session for CpuSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.check_inputs(inputs)?;
        let plan = self.plan.clone();
        for (slot, tensor) in plan.input_slots.iter().zip(inputs) {
            self.slots[*slot as usize] = Some(tensor.clone());
        }
        let result = self.run_steps().and_then(|()| self.take_outputs());
        self.clear();
        result
    }

    fn run_values(&mut self, inputs: &[Value]) -> Result<Vec<Value>, EngineError> {
        let tensors = inputs.iter().map(|value| host(value).cloned());
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        Ok(self.run(&tensors)?.into_iter().map(Value::Host).collect())
    }

    fn reset(&mut self, carried: &[Tensor]) {
        for ((input, _), tensor) in self.plan.carried.iter().zip(carried) {
            self.slots[*input as usize] = Some(tensor.clone());
        }
        for cache in self.caches.iter_mut().flatten() {
            cache.clear();
        }
    }

    fn mark(&mut self) {
        let Mark { carried, lengths } = &mut self.marked;
        carried.clear();
        let inputs = self.plan.carried.iter().map(|(input, _)| *input as usize);
        carried.extend(inputs.map(|input| self.slots[input].clone()));
        lengths.resize_with(self.caches.len(), Vec::new);
        for (lengths, layer) in lengths.iter_mut().zip(&self.caches) {
            lengths.clear();
            lengths.extend(layer.iter().map(KvCache::len));
        }
    }

    fn rollback(&mut self) {
        for ((input, _), tensor) in self.plan.carried.iter().zip(&self.marked.carried) {
            self.slots[*input as usize] = tensor.clone();
        }
        for (layer, caches) in self.caches.iter_mut().enumerate() {
            for (sequence, cache) in caches.iter_mut().enumerate() {
                // A cache that did not exist at the mark was empty.
                let lengths = self.marked.lengths.get(layer);
                cache.truncate(lengths.and_then(|l| l.get(sequence)).copied().unwrap_or(0));
            }
        }
    }

    fn cache_bytes(&self) -> u64 {
        let packed: usize = self.caches.iter().flatten().map(KvCache::bytes_used).sum();
        let carried = self.plan.carried.iter().map(|(input, _)| {
            self.slots[*input as usize].as_ref().map_or(0, |tensor| tensor.bytes().len())
        });
        (packed + carried.sum::<usize>()) as u64
    }

    fn profile(&self) -> Option<Profile> {
        let steps = self.plan.steps.iter().zip(&self.times);
        self.plan.profile.then(|| {
            Profile::of_steps(steps.map(|(step, (n, nanos))| (step.op.as_str(), *n, *nanos)))
        })
    }
}
