//! Building the bodies of functions: standard operators that say what an operator means.

use planish_ir::{Attribute, Function, Graph, Node, OpsetImport, Tensor, ValueId, ValueType};

use crate::DOMAIN;

/// Version of ONNX's operator set that the bodies are written in.
const OPSET: i64 = 23;
/// ONNX's number of the attribute type "float".
const FLOAT: i32 = 1;
/// ONNX's number of the attribute type "int".
const INT: i32 = 2;

/// A function under construction.
pub(in crate::ops) struct Body {
    function: Function,
}

impl Body {
    /// The operator `name` of planish's domain with these inputs.
    pub fn new(name: &str, inputs: &[&str]) -> (Self, Vec<ValueId>) {
        let mut function = Function {
            name: name.into(),
            domain: DOMAIN.into(),
            opset_imports: vec![OpsetImport { domain: String::new(), version: OPSET }],
            body: Graph::new(name),
            ..Function::default()
        };
        let inputs: Vec<ValueId> =
            inputs.iter().map(|name| function.body.new_value(name, ValueType::Unknown)).collect();
        function.body.inputs.clone_from(&inputs);
        (Self { function }, inputs)
    }

    /// Adds `op_type` without attributes.
    pub fn op(&mut self, hint: &str, op_type: &str, inputs: &[ValueId]) -> ValueId {
        self.node(hint, Node::new(op_type, inputs.iter().copied().map(Some).collect()))
    }

    /// Adds a node with one output.
    pub fn node(&mut self, hint: &str, node: Node) -> ValueId {
        self.function.body.add_op(hint, node)
    }

    /// Adds `Cast`.
    pub fn cast(&mut self, hint: &str, x: ValueId, to: planish_ir::DataType) -> ValueId {
        let to = i64::from(to.to_onnx());
        self.node(hint, Node::new("Cast", vec![Some(x)]).with("to", to))
    }

    /// A constant scalar.
    pub fn float(&mut self, hint: &str, value: f32) -> ValueId {
        self.constant(hint, Tensor::scalar(value))
    }

    /// A constant integer.
    pub fn int(&mut self, hint: &str, value: i64) -> ValueId {
        self.constant(hint, Tensor::scalar(value))
    }

    /// Adds the sum of `x` over its first axis, which goes.
    pub fn sum_first(&mut self, hint: &str, x: ValueId) -> ValueId {
        let first = self.ints("first", &[0]);
        let sum = Node::new("ReduceSum", vec![Some(x), Some(first)]).with("keepdims", 0i64);
        self.node(hint, sum)
    }

    /// A constant list of integers.
    pub fn ints(&mut self, hint: &str, values: &[i64]) -> ValueId {
        self.constant(hint, Tensor::from_vec(&[values.len()], values.to_vec()))
    }

    fn constant(&mut self, hint: &str, tensor: Tensor) -> ValueId {
        self.node(hint, Node::new("Constant", Vec::new()).with("value", tensor))
    }

    /// The float attribute `name` of the calling node, `default` where it is absent.
    pub fn float_attribute(&mut self, name: &str, default: f32) -> ValueId {
        self.function.attribute_defaults.push((name.into(), default.into()));
        let reference = Attribute::Ref(name.into(), FLOAT);
        self.node(name, Node::new("Constant", Vec::new()).with("value_float", reference))
    }

    /// The float attribute `name` of the calling node, which must be there.
    pub fn required_float_attribute(&mut self, name: &str) -> ValueId {
        self.function.attributes.push(name.into());
        let reference = Attribute::Ref(name.into(), FLOAT);
        self.node(name, Node::new("Constant", Vec::new()).with("value_float", reference))
    }

    /// The integer attribute `name` of the calling node, which must be there.
    pub fn int_attribute(&mut self, name: &str) -> ValueId {
        self.function.attributes.push(name.into());
        let reference = Attribute::Ref(name.into(), INT);
        self.node(name, Node::new("Constant", Vec::new()).with("value_int", reference))
    }

    /// As [`Body::int_attribute`], `default` where it is absent.
    pub fn int_attribute_or(&mut self, name: &str, default: i64) -> ValueId {
        self.function.attribute_defaults.push((name.into(), default.into()));
        let reference = Attribute::Ref(name.into(), INT);
        self.node(name, Node::new("Constant", Vec::new()).with("value_int", reference))
    }

    /// The sizes `[start, end)` of the shape of `x`; negative ones count from the end.
    pub fn shape(&mut self, hint: &str, x: ValueId, start: i64, end: Option<i64>) -> ValueId {
        let mut node = Node::new("Shape", vec![Some(x)]).with("start", start);
        if let Some(end) = end {
            node = node.with("end", end);
        }
        self.node(hint, node)
    }

    /// Adds `Reshape` to the sizes in `parts`, joined.
    pub fn reshape(&mut self, hint: &str, x: ValueId, parts: &[ValueId]) -> ValueId {
        let shape = match parts {
            [shape] => *shape,
            parts => {
                let inputs = parts.iter().copied().map(Some).collect();
                let hint = format!("{hint}_shape");
                self.node(&hint, Node::new("Concat", inputs).with("axis", 0i64))
            }
        };
        self.op(hint, "Reshape", &[x, shape])
    }

    /// Names the outputs and ends.
    pub fn finish(mut self, outputs: &[(ValueId, &str)]) -> Function {
        for (value, name) in outputs {
            // A name that is taken stays as it was: outputs go by position.
            let _ = self.function.body.rename_value(*value, name);
            self.function.body.outputs.push(*value);
        }
        self.function
    }
}

/// Codes and scale of `DynamicQuantize` for `y`.
pub(in crate::ops) fn quantize(body: &mut Body, y: ValueId) -> (ValueId, ValueId) {
    let qmax = largest_code(body, true);
    let extremes = clipped_extremes(body, y);
    let scale = symmetric_scale(body, extremes, qmax);
    let (_, codes) = symmetric_codes(body, y, scale, qmax);
    (body.cast("codes", codes, planish_ir::DataType::I8), scale)
}

/// max(high, −low, 1e-8) / qmax.
pub(in crate::ops) fn symmetric_scale(
    body: &mut Body,
    (low, high): (ValueId, ValueId),
    qmax: ValueId,
) -> ValueId {
    let low_size = body.op("low_size", "Neg", &[low]);
    let floor = body.float("floor", 1e-8);
    let amax = body.op("amax", "Max", &[high, low_size, floor]);
    body.op("scale", "Div", &[amax, qmax])
}

/// The quotients of `y` and `scale`, and the symmetric codes as floats.
pub(in crate::ops) fn symmetric_codes(
    body: &mut Body,
    y: ValueId,
    scale: ValueId,
    qmax: ValueId,
) -> (ValueId, ValueId) {
    let quotient = body.op("quotient", "Div", &[y, scale]);
    let rounded = body.op("rounded", "Round", &[quotient]);
    let one = body.float("one", 1.0);
    let negative = body.op("negative", "Neg", &[qmax]);
    let qmin = body.op("qmin", "Sub", &[negative, one]);
    (quotient, body.op("clipped", "Clip", &[rounded, qmin, qmax]))
}

/// 2^bits − 1, or 2^(bits − 1) − 1 for signed codes, as a float; reads the attribute `bits`.
pub(in crate::ops) fn largest_code(body: &mut Body, signed: bool) -> ValueId {
    let bits = body.int_attribute("bits");
    let mut bits = body.cast("bits_f", bits, planish_ir::DataType::F32);
    let one = body.float("one", 1.0);
    if signed {
        bits = body.op("magnitude_bits", "Sub", &[bits, one]);
    }
    let two = body.float("two", 2.0);
    let levels = body.op("levels", "Pow", &[two, bits]);
    body.op("qmax", "Sub", &[levels, one])
}

/// clip_min · min and clip_max · max over the last axis.
pub(in crate::ops) fn clipped_extremes(body: &mut Body, x: ValueId) -> (ValueId, ValueId) {
    let range = extremes(body, x);
    let clip_min = body.float_attribute("clip_min", 1.0);
    let clip_max = body.float_attribute("clip_max", 1.0);
    clipped(body, range, (clip_min, clip_max))
}

/// The smallest and the largest element over the last axis.
pub(in crate::ops) fn extremes(body: &mut Body, x: ValueId) -> (ValueId, ValueId) {
    let axes = body.ints("axes", &[-1]);
    (body.op("low", "ReduceMin", &[x, axes]), body.op("high", "ReduceMax", &[x, axes]))
}

/// Extremes times the factors that clip them.
pub(in crate::ops) fn clipped(
    body: &mut Body,
    (low, high): (ValueId, ValueId),
    (clip_min, clip_max): (ValueId, ValueId),
) -> (ValueId, ValueId) {
    (
        body.op("clipped_low", "Mul", &[clip_min, low]),
        body.op("clipped_high", "Mul", &[clip_max, high]),
    )
}

/// P1ᵀ · X̃ · P2 (or without P2) of the rows of `x`, in its shape.
pub(in crate::ops) fn transform(
    body: &mut Body,
    x: ValueId,
    p1: ValueId,
    p2: Option<ValueId>,
) -> ValueId {
    let whole = body.shape("whole", x, 0, None);
    let outer = body.shape("outer", x, 0, Some(-1));
    let n1 = body.shape("n1", p1, 0, Some(1));
    let n2 = match p2 {
        Some(p2) => body.shape("n2", p2, 0, Some(1)),
        None => body.ints("n2", &[-1]),
    };
    let mut y = body.reshape("matrices", x, &[outer, n1, n2]);
    if let Some(p2) = p2 {
        y = body.op("right", "MatMul", &[y, p2]);
    }
    let transposed = Node::new("Transpose", vec![Some(p1)]).with("perm", vec![1i64, 0]);
    let transposed = body.node("p1_t", transposed);
    let y = body.op("left", "MatMul", &[transposed, y]);
    body.reshape("transformed", y, &[whole])
}
