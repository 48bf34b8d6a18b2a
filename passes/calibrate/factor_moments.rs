//! Second moments as far as a Kronecker-factored transform needs them.

use planish_ir::{DataType, Dim, Graph, Node, Tensor, TensorError, ValueId, ValueType};

use crate::transform::Matrix;

/// Of activations x = `[n₁, n₂]` of a token: those parts of Σ xᵀx that partial traces are sums of,
/// which for n₁ = 112 and n₂ = 128 are a sixtieth of all.
#[derive(Clone, Debug)]
pub struct FactorMoments {
    sizes: (usize, usize),
    /// Σ x_ij x_kj, `[n₂, n₁, n₁]`: a matrix for each j.
    first: Vec<f64>,
    /// Σ x_ij x_im, `[n₁, n₂, n₂]`: a matrix for each i.
    second: Vec<f64>,
}

impl FactorMoments {
    /// Zeros.
    pub fn new((n1, n2): (usize, usize)) -> Self {
        let (first, second) = (vec![0.0; n2 * n1 * n1], vec![0.0; n1 * n2 * n2]);
        Self { sizes: (n1, n2), first, second }
    }

    /// Lets a graph give the moments of `x`, whose last axis has n₁·n₂ channels.
    pub(super) fn write(graph: &mut Graph, x: ValueId, (n1, n2): (usize, usize)) -> [ValueId; 2] {
        let shape = Tensor::from_vec(&[3], vec![-1, n1 as i64, n2 as i64]);
        let shape = graph.add_constant("planish.factors", shape);
        let rows = Node::new("Reshape", vec![Some(x), Some(shape)]);
        let rows = graph.add_op("planish.factored", rows);
        let mut turned = |perm: [i64; 3]| {
            let node = Node::new("Transpose", vec![Some(rows)]).with("perm", perm.to_vec());
            graph.add_op("planish.turned", node)
        };
        let pairs = [
            (turned([2, 1, 0]), turned([2, 0, 1]), [n2, n1, n1]),
            (turned([1, 2, 0]), turned([1, 0, 2]), [n1, n2, n2]),
        ];
        let product = |(left, right, shape): (ValueId, ValueId, [usize; 3])| {
            let node = Node::new("MatMul", vec![Some(left), Some(right)]);
            let moments = graph.add_op("planish.moments", node);
            let shape = shape.map(Dim::from).to_vec();
            graph.value_mut(moments).ty = ValueType::tensor(DataType::F32, shape);
            moments
        };
        pairs.map(product)
    }

    /// Adds what one run gave.
    ///
    /// # Errors
    /// If an output is no f32 tensor of its shape.
    pub fn add(&mut self, outputs: &[Tensor]) -> Result<(), TensorError> {
        let (n1, n2) = self.sizes;
        let both = [(&mut self.first, [n2, n1, n1]), (&mut self.second, [n1, n2, n2])];
        let pairs: Vec<_> = both.into_iter().zip(outputs).collect();
        for ((sums, shape), output) in &pairs {
            let actual = output.bytes().len();
            if output.as_slice::<f32>()?.len() != sums.len() || output.shape() != shape {
                let (dtype, shape, expected) = (output.dtype(), shape.to_vec(), 4 * sums.len());
                return Err(TensorError::Size { dtype, shape, expected, actual });
            }
        }
        for ((sums, _), output) in pairs {
            let values = output.as_slice::<f32>()?;
            sums.iter_mut().zip(values.iter()).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        Ok(())
    }

    /// The partial traces of the moments of x / `scale`: over the second index, `[n₁, n₁]`, and
    /// over the first, `[n₂, n₂]`.
    pub(super) fn traces(&self, scale: &[f64]) -> (Matrix, Matrix) {
        let (n1, n2) = self.sizes;
        let first = Matrix::from_fn(n1, n1, |i, k| {
            let of = |j: usize| {
                let (a, b) = (scale[i * n2 + j], scale[k * n2 + j]);
                self.first[(j * n1 + i) * n1 + k] / (a * b)
            };
            (0..n2).map(of).sum()
        });
        let second = Matrix::from_fn(n2, n2, |j, m| {
            let of = |i: usize| {
                let (a, b) = (scale[i * n2 + j], scale[i * n2 + m]);
                self.second[(i * n2 + j) * n2 + m] / (a * b)
            };
            (0..n1).map(of).sum()
        });
        (first, second)
    }
}

#[cfg(test)]
mod tests {
    use planish_ir::Model;

    use super::*;
    use crate::testing::evaluate;

    #[test]
    fn traces_of_what_the_graph_gives_are_those_of_all_moments() {
        let (n1, n2, n_rows) = (3, 2, 4);
        let n = n1 * n2;
        let x: Vec<f32> = (0..n_rows * n).map(|i| ((i * 37 % 11) as f32 - 5.0) / 3.0).collect();
        let mut model = Model::default();
        model.set_opset("", 21);
        let shape = [2, n_rows / 2, n].map(Dim::from).to_vec();
        let input = model.graph.new_value("x", ValueType::tensor(DataType::F32, shape));
        model.graph.inputs.push(input);
        model.graph.outputs = FactorMoments::write(&mut model.graph, input, (n1, n2)).to_vec();
        let outputs = evaluate(&model, vec![Tensor::from_vec(&[2, n_rows / 2, n], x.clone())]);
        let mut moments = FactorMoments::new((n1, n2));
        moments.add(&outputs).unwrap();
        let wrong = [outputs[1].clone(), outputs[0].clone()];
        assert!(moments.add(&wrong).is_err());

        let scale: Vec<f64> = (0..n).map(|i| 1.0 + i as f64 / 4.0).collect();
        let at = |row: usize, i: usize| f64::from(x[row * n + i]) / scale[i];
        let all = |a: usize, b: usize| (0..n_rows).map(|row| at(row, a) * at(row, b)).sum::<f64>();
        let (first, second) = moments.traces(&scale);
        let expected = |i: usize, k: usize| (0..n2).map(|j| all(i * n2 + j, k * n2 + j)).sum();
        assert!(first.max_difference(&Matrix::from_fn(n1, n1, expected)) < 1e-5, "{first:?}");
        let expected = |j: usize, m: usize| (0..n1).map(|i| all(i * n2 + j, i * n2 + m)).sum();
        assert!(second.max_difference(&Matrix::from_fn(n2, n2, expected)) < 1e-5, "{second:?}");
    }
}
