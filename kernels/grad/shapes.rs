//! What gradient rules need again and again: numbers, shapes, sums over what was broadcast.

use half::{bf16, f16};
use planish_ir::{DataType, Dim, Node, Tensor, ValueId};

use super::{GradNode, GradScope};
use crate::{Fact, OpError};

impl GradNode<'_> {
    /// The facts of the forward node's inputs, as inference got them.
    pub fn facts(&self, scope: &GradScope) -> Vec<Fact> {
        let fact = |input: &Option<ValueId>| input.map_or_else(Fact::absent, |v| scope.fact(v));
        self.op.node.inputs.iter().map(fact).collect()
    }
}

impl GradScope<'_> {
    /// Whether the size of `axis` (negative: from the end) of a value is known to be 1.
    fn is_one(&self, value: ValueId, axis: i64) -> bool {
        self.fact(value).dim(axis).and_then(Dim::as_const) == Some(1)
    }

    /// The number `number` as a constant of rank 0 and of the element type of `like`.
    ///
    /// # Errors
    /// If that type is not known or does not hold fractions.
    pub fn number(&mut self, number: f64, like: ValueId) -> Result<ValueId, OpError> {
        let dtype = self.dtype(like)?;
        Ok(self.constant(scalar(number, dtype)?))
    }

    /// The element type of a value.
    ///
    /// # Errors
    /// If it is not known.
    pub fn dtype(&self, value: ValueId) -> Result<DataType, OpError> {
        let name = || self.graph().value(value).name.clone();
        let unknown = || OpError::unsupported(format!("the type of \"{}\" is unknown", name()));
        self.fact(value).dtype.ok_or_else(unknown)
    }

    /// `value` · `factor`.
    ///
    /// # Errors
    /// If the type of `value` is not known.
    pub fn scale(&mut self, value: ValueId, factor: f64) -> Result<ValueId, OpError> {
        let factor = self.number(factor, value)?;
        self.op("Mul", &[value, factor])
    }

    /// `value` where `condition` (bool, broadcast) holds, else 0.
    ///
    /// # Errors
    /// If the type of `value` is not known.
    pub fn keep_where(&mut self, condition: ValueId, value: ValueId) -> Result<ValueId, OpError> {
        let zero = self.number(0.0, value)?;
        self.op("Where", &[condition, value, zero])
    }

    /// 0 where `condition` (bool, broadcast) holds, else `value`.
    ///
    /// # Errors
    /// If the type of `value` is not known.
    pub fn drop_where(&mut self, condition: ValueId, value: ValueId) -> Result<ValueId, OpError> {
        let zero = self.number(0.0, value)?;
        self.op("Where", &[condition, zero, value])
    }

    /// The sizes of a value, i64 `[rank]`: a constant if they are all known.
    ///
    /// # Errors
    /// None that inference of `Shape` does not have.
    pub fn shape_of(&mut self, value: ValueId) -> Result<ValueId, OpError> {
        let fact = self.fact(value);
        let sizes: Option<Vec<i64>> =
            fact.shape.and_then(|shape| shape.iter().map(Dim::as_const).collect());
        match sizes {
            Some(sizes) => Ok(self.ints(&sizes)),
            None => self.op("Shape", &[value]),
        }
    }

    /// The size of one axis of a value, i64 `[1]`: a constant if it is known.
    ///
    /// # Errors
    /// If the rank is not known.
    pub fn size_of(&mut self, value: ValueId, axis: usize) -> Result<ValueId, OpError> {
        self.rank(value)?;
        match self.fact(value).dim(axis as i64).and_then(Dim::as_const) {
            Some(size) => Ok(self.ints(&[size])),
            None => {
                let node = Node::new("Shape", vec![Some(value)]);
                let node = node.with("start", axis as i64).with("end", axis as i64 + 1);
                self.node("grad_size", node)
            }
        }
    }

    /// Zeros of the shape and element type of `like`.
    ///
    /// # Errors
    /// If the type of `like` is not known.
    pub fn zeros_like(&mut self, like: ValueId) -> Result<ValueId, OpError> {
        let zero = self.number(0.0, like)?;
        self.expand_like(zero, like)
    }

    /// `value` repeated to the shape of `like`.
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    pub fn expand_like(&mut self, value: ValueId, like: ValueId) -> Result<ValueId, OpError> {
        let shape = self.shape_of(like)?;
        self.op("Expand", &[value, shape])
    }

    /// `value` as `[rows, last]`, all axes but the last in one.
    ///
    /// # Errors
    /// If the last size is not a known number.
    pub fn as_rows(&mut self, value: ValueId) -> Result<ValueId, OpError> {
        if self.rank(value)? == 2 {
            return Ok(value);
        }
        let name = || self.graph().value(value).name.clone();
        let varies = || OpError::unsupported(format!("the last size of \"{}\" varies", name()));
        let last = self.fact(value).dim(-1).and_then(Dim::as_const).ok_or_else(varies)?;
        let shape = self.ints(&[-1, last]);
        self.op("Reshape", &[value, shape])
    }

    /// `value` in the shape of `like`, which has as many elements.
    ///
    /// # Errors
    /// If the shapes contradict each other.
    pub fn reshape_like(&mut self, value: ValueId, like: ValueId) -> Result<ValueId, OpError> {
        let (from, to) = (self.fact(value).shape, self.fact(like).shape);
        if to.is_some() && from == to {
            return Ok(value);
        }
        let target = to.and_then(|to| reshape_target(from.as_deref().unwrap_or(&[]), &to));
        let shape = match target {
            Some(target) => self.ints(&target),
            None => self.op("Shape", &[like])?,
        };
        let reshaped = self.op("Reshape", &[value, shape])?;
        // Inference does not see through every −1.
        let known = Fact::new(self.fact(reshaped).dtype, self.fact(like).shape);
        self.facts.set(reshaped, known);
        Ok(reshaped)
    }

    /// The gradient of an input that was broadcast: `value` summed over the axes that `like`
    /// lacks or has only one element in, in the shape of `like`. As in inference, two sizes that
    /// are not known are taken to be equal.
    ///
    /// # Errors
    /// If a rank is not known, or `like` has more axes than `value`.
    pub fn reduce_to(&mut self, value: ValueId, like: ValueId) -> Result<ValueId, OpError> {
        let (rank, wanted) = (self.rank(value)?, self.rank(like)?);
        let too_few = || OpError::shape(format!("a gradient of {rank} axes for {wanted}"));
        let missing = rank.checked_sub(wanted).ok_or_else(too_few)?;
        let spread = |i: &usize| {
            let (from, to) = (*i as i64, *i as i64 - missing as i64);
            to < 0 || self.is_one(like, to) && !self.is_one(value, from)
        };
        let axes: Vec<i64> = (0..rank).filter(spread).map(|i| i as i64).collect();
        if axes.is_empty() {
            return Ok(value);
        }
        let only_missing = axes.len() == missing;
        let axes = self.ints(&axes);
        let node = Node::new("ReduceSum", vec![Some(value), Some(axes)]);
        let sum = self.node("grad_sum", node.with("keepdims", i64::from(!only_missing)))?;
        if only_missing || missing == 0 { Ok(sum) } else { self.reshape_like(sum, like) }
    }

    /// `value` with axes of size 1 put in at `axes`.
    ///
    /// # Errors
    /// If an axis is out of range.
    pub fn unsqueeze(&mut self, value: ValueId, axes: &[i64]) -> Result<ValueId, OpError> {
        let axes = self.ints(axes);
        self.op("Unsqueeze", &[value, axes])
    }

    /// `value` with its axes in the order `permutation`.
    ///
    /// # Errors
    /// If that is no permutation of them.
    pub fn transpose(&mut self, value: ValueId, permutation: &[i64]) -> Result<ValueId, OpError> {
        let node = Node::new("Transpose", vec![Some(value)]).with("perm", permutation.to_vec());
        self.node("grad_transpose", node)
    }
}

/// What `Reshape` has to be told to bring `from` to `to` without the sizes that vary: 0 for a size
/// that is where it was, −1 for one more.
fn reshape_target(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let mut open = 0;
    let size = |(i, dim): (usize, &Dim)| match dim.as_const() {
        // A size of 0 would be read as "as before".
        Some(size) => Some(size).filter(|size| *size > 0),
        None if from.get(i) == Some(dim) => Some(0),
        None => {
            open += 1;
            Some(-1)
        }
    };
    let target: Vec<i64> = to.iter().enumerate().map(size).collect::<Option<_>>()?;
    (open < 2).then_some(target)
}

/// A tensor of rank 0.
fn scalar(number: f64, dtype: DataType) -> Result<Tensor, OpError> {
    Ok(match dtype {
        DataType::F32 => Tensor::scalar(number as f32),
        DataType::F64 => Tensor::scalar(number),
        DataType::F16 => Tensor::scalar(f16::from_f64(number)),
        DataType::BF16 => Tensor::scalar(bf16::from_f64(number)),
        other => return Err(OpError::unsupported(format!("{other} has no gradient"))),
    })
}
