//! ONNX Runtime's answer for one node, for the tests.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use planish_ir::{DataType, Dim, Model, Node, OpsetImport, Tensor, TensorType, ValueType};
use planish_onnx::{WriteOptions, write_model};

use super::testing::{Case, assert_same};
use crate::{DOMAIN, MICROSOFT, ops};

/// Version of the file format that has 4-bit integers.
const IR_VERSION: i64 = 10;

/// One node with its inputs; those at `constants` are initializers that can't be overridden.
pub(in crate::ops) struct Question {
    pub case: Case,
    pub inputs: Vec<Option<Tensor>>,
    pub constants: Vec<usize>,
    /// The outputs asked for; empty for all of the case.
    wanted: Vec<usize>,
    /// Elements of the first output that count; `None` for all.
    prefix: Option<usize>,
}

impl Question {
    /// A question whose inputs are all variable.
    pub fn new(case: Case, inputs: Vec<Option<Tensor>>) -> Self {
        Self { case, inputs, constants: Vec::new(), wanted: Vec::new(), prefix: None }
    }

    /// With constant inputs.
    pub fn constants(mut self, constants: &[usize]) -> Self {
        self.constants = constants.to_vec();
        self
    }

    /// Asks only for the outputs at these positions.
    pub fn ask_for(&mut self, wanted: &[usize]) {
        let n = wanted.iter().max().map_or(1, |last| last + 1);
        self.case = std::mem::replace(&mut self.case, Case::new("", "", 1)).outputs(n);
        for (i, output) in self.case.node.outputs.iter_mut().enumerate() {
            *output = output.filter(|_| wanted.contains(&i));
        }
        self.wanted = wanted.to_vec();
    }

    /// Asks for the normalised rows and the sum of a skip normalisation.
    pub fn ask_for_sum(&mut self) {
        self.ask_for(&[0, 3]);
    }

    /// Compares only the first `n` elements of the first output.
    pub fn only_first(&mut self, n: usize) {
        self.prefix = Some(n);
    }

    /// The part of an output that counts.
    fn counting(&self, output: usize, tensor: &Tensor) -> Tensor {
        match self.prefix {
            Some(n) if output == 0 => {
                Tensor::from_vec(&[n], tensor.to_f32_vec().unwrap()[..n].to_vec())
            }
            _ => tensor.clone(),
        }
    }

    fn wants(&self, output: usize) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&output)
    }

    /// The model of this node, and the outputs that the reference evaluation gives.
    fn model(&self) -> (Model, Vec<Tensor>) {
        let import = |domain: &str, version| OpsetImport { domain: domain.into(), version };
        let opset = if self.case.node.domain.is_empty() { self.case.opset } else { 23 };
        let mut model = Model {
            ir_version: IR_VERSION,
            opset_imports: vec![import("", opset), import(MICROSOFT, 1), import(DOMAIN, 1)],
            ..Model::default()
        };
        let op = ops::find(&self.case.node.domain, &self.case.node.op_type).unwrap();
        model.functions.extend(op.function.map(|function| function()));
        let mut inputs = Vec::new();
        for (i, tensor) in self.inputs.iter().enumerate() {
            let value = tensor.clone().map(|t| model.graph.add_constant("x", t));
            model.graph.inputs.extend(value.filter(|_| !self.constants.contains(&i)));
            inputs.push(value);
        }
        let expected = self.case.eval(&self.inputs);
        let mut outputs = Vec::new();
        for (i, tensor) in expected.iter().enumerate() {
            let shape = Some(tensor.shape().iter().map(|d| Dim::from(*d)).collect());
            let ty = TensorType { dtype: Some(tensor.dtype()), shape };
            let wanted = self.wants(i);
            outputs.push(wanted.then(|| model.graph.new_value("y", ValueType::Tensor(ty))));
        }
        model.graph.outputs.extend(outputs.iter().flatten());
        let node = Node { inputs, outputs, ..self.case.node.clone() };
        model.graph.add_node(node).unwrap();
        (model, expected)
    }
}

/// Fails unless ONNX Runtime and the reference evaluation (and the fast form, if the node has one)
/// agree within `tolerance`; see [`assert_same`].
pub(in crate::ops) fn assert_agree(questions: &[Question], tolerance: f32) {
    let folder = tempfile::tempdir().unwrap();
    let (mut paths, mut evaluated) = (Vec::new(), Vec::new());
    for (i, question) in questions.iter().enumerate() {
        let (model, expected) = question.model();
        let path = folder.path().join(format!("{i}.onnx"));
        write_model(&model, &path, &WriteOptions::default()).unwrap();
        paths.push(path);
        evaluated.push(expected);
    }
    let python = std::env::var("PLANISH_PYTHON_ORACLE").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/run_model.py");
    let output = Command::new(python).arg(script).args(&paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines = said.lines();
    for (i, question) in questions.iter().enumerate() {
        let fast = question.case.try_cpu(&question.inputs, &question.constants);
        let wanted = evaluated[i].iter().enumerate().filter(|(index, _)| question.wants(*index));
        for (position, (index, expected)) in wanted.enumerate() {
            let file = format!("{}.{position}.bin", paths[i].display());
            let answer = tensor(lines.next().unwrap(), Path::new(&file));
            println!("{} {i}, output {index}", question.case.node.op_type);
            let answer = question.counting(index, &answer);
            assert_same(&question.counting(index, expected), &answer, tolerance);
            if let Some(fast) = &fast {
                assert_same(&question.counting(index, &fast[index]), &answer, tolerance);
            }
        }
    }
}

fn tensor(line: &str, file: &Path) -> Tensor {
    let mut words = line.split_whitespace();
    let dtype = DataType::from_name(words.next().unwrap()).unwrap();
    let shape = words.map(|size| size.parse().unwrap()).collect();
    Tensor::new(dtype, shape, Bytes::from(std::fs::read(file).unwrap())).unwrap()
}
