//! Running a plan.

use std::sync::Arc;

use planish_cpu::ThreadPool;
use planish_cuda::attention::KvCache;
use planish_cuda::timer::Stopwatch;
use planish_cuda::{DeviceBuffer, Gpu, MemoryPool};
use planish_ir::{DataType, Tensor};
use planish_kernels::buffers::BufferPool;
use planish_kernels::cuda_kernel::{CudaInputs, Value};
use planish_kernels::{CpuContext, CudaContext, OpError};

use super::plan::{Plan, Slot, Step, Work};
use super::record::{Key, Recording, Upload};
use super::slots::{Slots, copied};
use crate::engine::cpu::plan::Action;
use crate::engine::{EngineError, IoInfo, Profile, Session};

/// The changing part of a plan.
pub(super) struct CudaSession {
    plan: Arc<Plan>,
    gpu: Arc<Gpu>,
    pool: Arc<ThreadPool>,
    buffers: BufferPool,
    slots: Slots,
    caches: Vec<Option<KvCache>>,
    /// On the device, INT32: positions in the caches. Made at the first run.
    past: Option<DeviceBuffer>,
    n_past: usize,
    marked: Mark,
    last: Option<Key>,
    recording: Option<Recording>,
    /// What recorded runs of values work in; see [`super::record`].
    shared: MemoryPool,
    /// Runs and nanoseconds of every step; empty unless they are measured.
    times: Vec<(u64, u64)>,
}

/// What [`Session::rollback`] returns to.
#[derive(Default)]
struct Mark {
    carried: Vec<Option<Value>>,
    n_past: usize,
}

impl CudaSession {
    pub fn new(plan: Arc<Plan>, gpu: Arc<Gpu>, pool: Arc<ThreadPool>, shared: MemoryPool) -> Self {
        let times = if plan.profile { vec![(0, 0); plan.steps.len()] } else { Vec::new() };
        Self {
            slots: Slots::new(&plan, gpu.clone()),
            plan,
            gpu,
            pool,
            buffers: BufferPool::new(),
            caches: Vec::new(),
            past: None,
            n_past: 0,
            marked: Mark::default(),
            last: None,
            recording: None,
            shared,
            times,
        }
    }

    fn set_inputs(
        &mut self,
        inputs: impl ExactSizeIterator<Item = Value>,
    ) -> Result<(), EngineError> {
        let plan = self.plan.clone();
        let (expected, got) = (plan.inputs.len(), inputs.len());
        if expected != got {
            return Err(EngineError::InputCount { expected, got });
        }
        for ((slot, info), value) in plan.input_slots.iter().zip(&plan.inputs).zip(inputs) {
            info.check_value(&value)?;
            self.slots.set(*slot, value);
        }
        Ok(())
    }

    /// Runs everything; the outputs are in their slots. Runs of values are recorded whatever their
    /// length.
    fn run_all(&mut self, of_values: bool) -> Result<(), EngineError> {
        let plan = self.plan.clone();
        for step in &plan.prefix {
            self.run_step(step, false)?;
        }
        self.tell_past().map_err(of_engine)?;
        let key = Key::new(&plan, &self.slots);
        let may_record = plan.recordable && !plan.profile && (of_values || key.is_short());
        if may_record && self.holds_recording(&key) {
            return self.replay();
        }
        let comes_again = self.last.as_ref() == Some(&key);
        self.last = Some(key.clone());
        if may_record && comes_again && self.has_room(&key) {
            let own = if of_values { self.gpu.pool().child() } else { MemoryPool::new() };
            let between = if of_values { self.shared.clone() } else { own.clone() };
            self.record(key, own, between, of_values)?;
            return self.replay();
        }
        self.run_device_steps(None)?;
        Ok(())
    }

    /// Writes the number of positions in the caches to the device.
    fn tell_past(&mut self) -> Result<(), OpError> {
        let buffer = match self.past.take() {
            Some(buffer) => buffer,
            None => self.gpu.alloc_exact(4)?,
        };
        let n = i32::try_from(self.n_past)
            .map_err(|_| OpError::unsupported("the context is too long"))?;
        self.gpu.write(buffer.ptr(), &[n])?;
        self.past = Some(buffer);
        Ok(())
    }

    /// Runs all steps; while recording in two pools: one of outputs, one of all else.
    fn run_device_steps(
        &mut self,
        recording: Option<(&MemoryPool, &MemoryPool)>,
    ) -> Result<usize, EngineError> {
        let plan = self.plan.clone();
        let mut appended = 0;
        let mut watches = Vec::new();
        for step in &plan.steps {
            let watch = plan.profile.then(|| Stopwatch::new(&self.gpu)).transpose();
            let watch = watch.map_err(of_gpu)?;
            if let Some(watch) = &watch {
                watch.start(&self.gpu).map_err(of_gpu)?;
            }
            if let Some((own, between)) = recording {
                let makes_output =
                    step.outputs.iter().flatten().any(|s| plan.output_slots.contains(s));
                self.gpu.set_pool(if makes_output { own } else { between }.clone());
            }
            let n = self.run_step(step, recording.is_some())?;
            appended = appended.max(n);
            if let Some(watch) = watch {
                watch.stop(&self.gpu).map_err(of_gpu)?;
                watches.push(watch);
            }
        }
        for (time, watch) in self.times.iter_mut().zip(&watches) {
            let micros = watch.microseconds().map_err(of_gpu)?;
            *time = (time.0 + 1, time.1 + (micros * 1e3) as u64);
        }
        if recording.is_none() {
            self.n_past += appended;
        }
        Ok(appended)
    }

    /// Runs a step; returns how many positions it appended to a cache.
    fn run_step(&mut self, step: &Step, recording: bool) -> Result<usize, EngineError> {
        let fail = |error| EngineError::Run { node: step.node.clone(), error };
        let mut appended = 0;
        let results = self.results(step, recording, &mut appended).map_err(fail)?;
        for (slot, value) in step.outputs.iter().zip(results) {
            if let Some(slot) = slot {
                self.slots.set(*slot, value);
            }
        }
        step.frees.iter().for_each(|slot| self.slots.clear(*slot));
        Ok(appended)
    }

    fn results(
        &mut self,
        step: &Step,
        recording: bool,
        appended: &mut usize,
    ) -> Result<Vec<Value>, OpError> {
        if let Work::Shape(range) = &step.work {
            let slot = step.inputs.first().copied().flatten().map(|read| read.slot());
            let shape = slot.and_then(|slot| self.slots.shape(slot));
            return Ok(vec![Value::Host(shape_of(&shape.ok_or(OpError::MissingInput(0))?, range))]);
        }
        self.gpu.begin_piece()?;
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for read in &step.inputs {
            let value = match read {
                Some(read) => self.slots.read(*read)?,
                None => None,
            };
            if let Some(Value::Device(tensor)) = &value {
                self.gpu.piece_reads(tensor.ptr(), tensor.n_bytes())?;
            }
            inputs.push(value);
        }
        let results = self.work(step, &inputs, recording, appended)?;
        self.gpu.end_piece()?;
        Ok(results)
    }

    fn work(
        &mut self,
        step: &Step,
        inputs: &[Option<Value>],
        recording: bool,
        appended: &mut usize,
    ) -> Result<Vec<Value>, OpError> {
        match &step.work {
            Work::Device(kernel) => {
                let mut context = CudaContext {
                    gpu: &self.gpu,
                    element: self.plan.element,
                    precision: self.plan.precision,
                    caches: &mut self.caches,
                    past: self.past.as_ref().map(DeviceBuffer::ptr).unwrap_or_default(),
                    n_past: self.n_past,
                    recording,
                    appended,
                };
                let outputs = kernel.run(&mut context, CudaInputs(inputs))?;
                Ok(outputs.into_iter().map(Value::Device).collect())
            }
            Work::Host(action) => self.on_host(action, inputs),
            Work::Shape(_) => Ok(Vec::new()),
        }
    }

    fn on_host(&self, action: &Action, inputs: &[Option<Value>]) -> Result<Vec<Value>, OpError> {
        let tensors = inputs.iter().map(|value| match value {
            Some(Value::Host(tensor)) => Some(tensor.clone()),
            _ => None,
        });
        let tensors: Vec<Option<Tensor>> = tensors.collect();
        let slots: Vec<Option<u32>> =
            tensors.iter().enumerate().map(|(i, t)| t.as_ref().map(|_| i as u32)).collect();
        let mut caches = Vec::new();
        let mut context = CpuContext::new(&self.pool, &self.buffers, &mut caches);
        let outputs = action.run(&mut context, &tensors, &slots)?;
        Ok(outputs.into_iter().map(Value::Host).collect())
    }

    /// Room in the caches, if there are any.
    fn capacity(&self) -> Option<usize> {
        self.caches.iter().flatten().map(KvCache::capacity).min()
    }

    fn holds_recording(&self, key: &Key) -> bool {
        let holds = |recording: &Recording| recording.holds_for(key, self.n_past, self.capacity());
        self.recording.as_ref().is_some_and(holds)
    }

    /// Whether the caches have room for a run like this one, so that they need not grow.
    fn has_room(&self, key: &Key) -> bool {
        self.capacity().is_none_or(|capacity| self.n_past + key.n_tokens() <= capacity)
    }

    /// Records a run in two pools; of values woven: their graphs, forwards and backwards, have much that
    /// can run side by side.
    fn record(
        &mut self,
        key: Key,
        own: MemoryPool,
        between: MemoryPool,
        woven: bool,
    ) -> Result<(), EngineError> {
        self.recording = None;
        let (plan, gpu) = (self.plan.clone(), self.gpu.clone());
        let recorded = gpu.exclusively(|| {
            let before = gpu.set_pool(own.clone());
            let recorded = self.record_in(&plan, key, (own, &between), woven);
            gpu.set_pool(before);
            recorded
        });
        self.recording = Some(recorded?);
        Ok(())
    }

    fn record_in(
        &mut self,
        plan: &Plan,
        key: Key,
        (own, between): (MemoryPool, &MemoryPool),
        woven: bool,
    ) -> Result<Recording, EngineError> {
        let mut uploads = Vec::with_capacity(plan.uploads.len());
        for slot in &plan.uploads {
            if !plan.resident.contains(slot) {
                self.slots.make_own(*slot).map_err(of_engine)?;
            }
            let to = self.slots.device(*slot).map_err(of_engine)?;
            uploads.extend(to.map(|to| Upload { slot: *slot, to, written: None }));
        }
        let mut appended = 0;
        let gpu = self.gpu.clone();
        self.slots.begin_recording();
        let work = || {
            let pools = Some((&own, between));
            appended = self.run_device_steps(pools).map_err(Recorded::Engine)?;
            self.gpu.set_pool(own.clone());
            self.keep_outputs(plan, &own).map_err(Recorded::Engine)
        };
        let graph = if woven { gpu.capture_woven(work) } else { gpu.capture(work) };
        let copied = self.slots.end_recording();
        let graph = graph.map_err(|error| match error {
            Recorded::Engine(error) => error,
            Recorded::Gpu(error) => of_gpu(error),
        })?;
        let outputs = plan.output_slots.iter().map(|slot| self.slots.value(*slot)).collect();
        let capacity = self.capacity().unwrap_or(usize::MAX);
        Ok(Recording {
            key,
            graph,
            uploads,
            outputs,
            appended,
            capacity,
            _copied: copied,
            pool: own,
        })
    }

    /// Copies outputs that are views of memory that others will use.
    fn keep_outputs(&mut self, plan: &Plan, own: &MemoryPool) -> Result<(), EngineError> {
        for slot in &plan.output_slots {
            let Some(tensor) = self.slots.on_device(*slot).cloned() else { continue };
            if !tensor.is_from(own) {
                self.gpu.begin_piece().map_err(of_gpu)?;
                self.gpu.piece_reads(tensor.ptr(), tensor.n_bytes()).map_err(of_gpu)?;
                let copy = copied(&self.gpu, &tensor).map_err(of_engine)?;
                self.gpu.end_piece().map_err(of_gpu)?;
                self.slots.set(*slot, Value::Device(copy));
            }
        }
        Ok(())
    }

    fn replay(&mut self) -> Result<(), EngineError> {
        let plan = self.plan.clone();
        let Some(recording) = &mut self.recording else {
            return Err(EngineError::NoOutput("a recording".into()));
        };
        for upload in &mut recording.uploads {
            self.slots.give(upload).map_err(of_engine)?;
        }
        self.gpu.replay(&mut recording.graph).map_err(of_gpu)?;
        self.n_past += recording.appended;
        for (slot, value) in plan.output_slots.iter().zip(&recording.outputs) {
            if let Some(value @ Value::Device(_)) = value {
                self.slots.set(*slot, value.clone());
            }
        }
        Ok(())
    }

    fn take_outputs(&mut self, wanted: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        let plan = self.plan.clone();
        let mut outputs = Vec::with_capacity(wanted.len());
        for index in wanted {
            let output = plan.output_slots.get(*index).zip(plan.outputs.get(*index));
            let (slot, info) =
                output.ok_or_else(|| EngineError::NoOutput(format!("output {index}")))?;
            let tensor = self.slots.host(*slot).map_err(of_engine)?;
            let tensor = tensor.ok_or_else(|| EngineError::NoOutput(info.name.clone()))?;
            outputs.push(as_declared(tensor, info)?);
        }
        self.carry();
        Ok(outputs)
    }

    fn take_values(&mut self) -> Result<Vec<Value>, EngineError> {
        let plan = self.plan.clone();
        let value = |(slot, info): (&Slot, &IoInfo)| {
            let value = self.slots.value(*slot);
            value.ok_or_else(|| EngineError::NoOutput(info.name.clone()))
        };
        let outputs = plan.output_slots.iter().zip(&plan.outputs).map(value);
        let outputs = outputs.collect::<Result<_, _>>()?;
        self.carry();
        Ok(outputs)
    }

    /// Gives the next run what it takes over from this one.
    fn carry(&mut self) {
        for (input, output) in &self.plan.clone().carried {
            match self.slots.value(*output) {
                Some(value) => self.slots.set(*input, value),
                None => self.slots.clear(*input),
            }
        }
    }

    /// Drops what a run leaves behind: inputs, outputs, and, after an error, everything between.
    fn clear(&mut self) {
        let plan = self.plan.clone();
        let steps = plan.prefix.iter().chain(&plan.steps);
        let between = steps.flat_map(|step| step.outputs.iter().flatten());
        for slot in between.chain(&plan.input_slots) {
            self.slots.clear(*slot);
        }
    }
}

impl Session for CudaSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let all: Vec<usize> = (0..self.plan.outputs.len()).collect();
        self.run_for(inputs, &all)
    }

    fn run_for(
        &mut self,
        inputs: &[Tensor],
        outputs: &[usize],
    ) -> Result<Vec<Tensor>, EngineError> {
        self.set_inputs(inputs.iter().cloned().map(Value::Host))?;
        let result = self.run_all(false).and_then(|()| self.take_outputs(outputs));
        self.clear();
        result
    }

    fn run_values(&mut self, inputs: &[Value]) -> Result<Vec<Value>, EngineError> {
        self.set_inputs(inputs.iter().cloned())?;
        let result = self.run_all(true).and_then(|()| self.take_values());
        self.clear();
        result
    }

    fn reset(&mut self, carried: &[Tensor]) {
        for ((input, _), tensor) in self.plan.clone().carried.iter().zip(carried) {
            self.slots.set(*input, Value::Host(tensor.clone()));
        }
        self.n_past = 0;
    }

    fn mark(&mut self) {
        let carried = self.plan.carried.iter().map(|(input, _)| self.slots.value(*input));
        self.marked = Mark { carried: carried.collect(), n_past: self.n_past };
    }

    fn rollback(&mut self) {
        let plan = self.plan.clone();
        for ((input, _), value) in plan.carried.iter().zip(self.marked.carried.clone()) {
            match value {
                Some(value) => self.slots.set(*input, value),
                None => self.slots.clear(*input),
            }
        }
        self.n_past = self.marked.n_past;
    }

    fn cache_bytes(&self) -> u64 {
        let packed: usize = self.caches.iter().flatten().map(|c| c.bytes_used(self.n_past)).sum();
        let carried = self.plan.carried.iter().map(|(input, _)| match self.slots.value(*input) {
            Some(Value::Host(tensor)) => tensor.bytes().len(),
            Some(Value::Device(tensor)) => tensor.n_bytes(),
            None => 0,
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

/// Errors while recording.
enum Recorded {
    Engine(EngineError),
    Gpu(planish_cuda::GpuError),
}

impl From<planish_cuda::GpuError> for Recorded {
    fn from(error: planish_cuda::GpuError) -> Self {
        Self::Gpu(error)
    }
}

fn of_gpu(error: planish_cuda::GpuError) -> EngineError {
    of_engine(error.into())
}

/// An error that no node is to blame for.
pub(super) fn of_engine(error: OpError) -> EngineError {
    EngineError::Run { node: "of the device".into(), error }
}

fn shape_of(shape: &[usize], range: &std::ops::Range<i64>) -> Tensor {
    let rank = shape.len() as i64;
    let clamp = |at: i64| if at < 0 { (at + rank).max(0) } else { at.min(rank) } as usize;
    let (start, end) = (clamp(range.start), clamp(range.end));
    let sizes: Vec<i64> = shape[start.min(end)..end].iter().map(|n| *n as i64).collect();
    Tensor::from_vec(&[sizes.len()], sizes)
}

/// The tensor in the type that the graph declares: floats come from the device as f32.
fn as_declared(tensor: Tensor, info: &IoInfo) -> Result<Tensor, EngineError> {
    let bytes: Vec<u8> = match info.dtype {
        Some(DataType::F16) if tensor.dtype() == DataType::F32 => {
            let data = tensor.to_f32_vec().map_err(|error| of_engine(error.into()))?;
            data.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()
        }
        Some(DataType::BF16) if tensor.dtype() == DataType::F32 => {
            let data = tensor.to_f32_vec().map_err(|error| of_engine(error.into()))?;
            data.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
        }
        _ => return Ok(tensor),
    };
    let dtype = info.dtype.unwrap_or(DataType::F32);
    Tensor::new(dtype, tensor.shape().to_vec(), bytes.into())
        .map_err(|error| of_engine(error.into()))
}
