//! Passes, and the manager that runs them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use planish_ir::{Model, VerifyError};
use planish_kernels::infer::{Facts, InferError, infer};

/// A named change of a whole model.
pub struct Pass {
    /// Verb first: `fuse_rms_norm`.
    pub name: &'static str,
    /// Changes the model and returns how many rewrites it made.
    pub run: fn(&mut Model, &mut PassContext) -> Result<usize, PassError>,
}

/// What a pass may use and leave behind.
#[derive(Default)]
pub struct PassContext {
    notes: Vec<String>,
}

impl PassContext {
    /// Records why something was left alone; shown by `inspect` and in the pass report.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Infers types and shapes of the model as it stands.
    ///
    /// # Errors
    /// If shapes contradict each other.
    pub fn infer(&self, model: &Model) -> Result<Facts, PassError> {
        Ok(infer(model)?)
    }
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The graph is not sound after a pass: a bug in that pass.
    #[error("after pass {pass}: {error}")]
    Verify {
        /// The pass.
        pass: &'static str,
        /// What it broke.
        error: VerifyError,
    },
    /// A stage could not be written for `--dump-ir`.
    #[error("can't write {path}: {error}")]
    Dump {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Anything else, as a sentence.
    #[error("{0}")]
    Other(String),
}

/// What one pass did.
#[derive(Debug, Clone)]
pub struct PassReport {
    /// Name of the pass.
    pub name: &'static str,
    /// Rewrites made; 0 means that nothing changed.
    pub n_rewrites: usize,
    /// Time taken.
    pub time: Duration,
    /// Why things were left alone.
    pub notes: Vec<String>,
}

impl std::fmt::Display for PassReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.time.as_secs_f64() * 1e3;
        match self.n_rewrites {
            0 => write!(f, "{:28} changed nothing    {millis:8.1} ms", self.name),
            n => write!(f, "{:28} {n:6} rewrites    {millis:8.1} ms", self.name),
        }
    }
}

/// Runs passes in order, verifying the graph after each one.
pub struct PassManager {
    dump_dir: Option<PathBuf>,
    verify: bool,
    reports: Vec<PassReport>,
}

impl Default for PassManager {
    fn default() -> Self {
        Self { dump_dir: None, verify: cfg!(debug_assertions), reports: Vec::new() }
    }
}

impl PassManager {
    /// A manager that verifies in debug builds only and writes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the text of the graph before the first and after every pass into `dir`.
    #[must_use]
    pub fn with_dump_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.dump_dir = dir;
        self
    }

    /// Verifies after every pass, in release builds too.
    #[must_use]
    pub fn with_verify(mut self) -> Self {
        self.verify = true;
        self
    }

    /// Runs `passes` on `model`.
    ///
    /// # Errors
    /// The first error of a pass, of the verifier, or of writing a dump.
    pub fn run(&mut self, model: &mut Model, passes: &[Pass]) -> Result<(), PassError> {
        if self.reports.is_empty() {
            self.dump(model, "imported")?;
        }
        for pass in passes {
            let mut context = PassContext::default();
            let start = Instant::now();
            let n_rewrites = (pass.run)(model, &mut context)?;
            let time = start.elapsed();
            if self.verify {
                planish_ir::verify(model)
                    .map_err(|error| PassError::Verify { pass: pass.name, error })?;
            }
            let report = PassReport { name: pass.name, n_rewrites, time, notes: context.notes };
            tracing::debug!("{report}");
            self.reports.push(report);
            self.dump(model, pass.name)?;
        }
        Ok(())
    }

    /// What every pass did so far.
    pub fn reports(&self) -> &[PassReport] {
        &self.reports
    }

    /// Writes the text of a stage that is no pass of this manager's, if dumps are asked for.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn dump(&self, model: &Model, stage: &str) -> Result<(), PassError> {
        let Some(dir) = &self.dump_dir else { return Ok(()) };
        let path = dir.join(format!("{:02}_{stage}.onnxtxt", self.reports.len()));
        let text = planish_ir::text::print(model, &planish_ir::text::PrintOptions::default());
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| PassError::Dump { path, error })
    }
}

#[cfg(test)]
mod tests {
    use planish_ir::{Graph, Node, ValueType};

    use super::*;

    const NEGATE: Pass = Pass { name: "negate", run: negate };
    const REST: Pass = Pass { name: "rest", run: |_, _| Ok(0) };
    const BREAK: Pass = Pass { name: "break", run: forget_an_input };

    fn negate(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
        let y = model.graph.outputs[0];
        model.graph.outputs[0] = model.graph.add_op("z", Node::new("Neg", vec![Some(y)]));
        context.note("one output only");
        Ok(1)
    }

    /// Leaves a node whose list of inputs departs from the edges.
    fn forget_an_input(model: &mut Model, _: &mut PassContext) -> Result<usize, PassError> {
        let (node, _) = model.graph.producer(model.graph.outputs[0]).unwrap();
        model.graph.node_mut(node).inputs.clear();
        Ok(1)
    }

    fn model() -> Model {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let y = graph.add_op("y", Node::new("Abs", vec![Some(x)]));
        graph.outputs.push(y);
        Model { graph, ..Model::default() }
    }

    #[test]
    fn each_pass_is_reported() {
        let mut manager = PassManager::new();
        manager.run(&mut model(), &[NEGATE, REST]).unwrap();
        let [negate, rest] = manager.reports() else { panic!("two reports") };
        assert_eq!((negate.name, negate.n_rewrites), ("negate", 1));
        assert_eq!(negate.notes, ["one output only"]);
        let (negate, rest) = (negate.to_string(), rest.to_string());
        assert!(negate.contains("1 rewrites") && negate.ends_with("ms"), "{negate}");
        assert!(rest.starts_with("rest ") && rest.contains("changed nothing"), "{rest}");
    }

    #[test]
    fn every_stage_is_dumped() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        let mut manager = PassManager::new().with_dump_dir(Some(dir.clone()));
        manager.run(&mut model(), &[NEGATE, REST]).unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
        assert!(!text("00_imported.onnxtxt").contains("Neg"));
        assert!(text("01_negate.onnxtxt").contains("Neg"));
        assert_eq!(text("02_rest.onnxtxt"), text("01_negate.onnxtxt"));
        std::fs::write(folder.path().join("file"), "").unwrap();
        let mut manager = PassManager::new().with_dump_dir(Some(folder.path().join("file")));
        let error = manager.run(&mut model(), &[REST]).unwrap_err();
        assert!(error.to_string().contains("file/00_imported.onnxtxt"), "{error}");
    }

    #[test]
    fn the_pass_that_breaks_the_graph_is_named() {
        let mut manager = PassManager::new().with_verify();
        let error = manager.run(&mut model(), &[NEGATE, BREAK, REST]).unwrap_err();
        assert!(error.to_string().starts_with("after pass break: "), "{error}");
        assert_eq!(manager.reports().len(), 1);
    }
}
