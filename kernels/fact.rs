//! What shape inference knows of a value.

use planish_ir::{DataType, Dim, Tensor, TensorType, ValueType};

/// Longest list of integers that is followed element by element.
pub const MAX_DIMS: usize = 64;

/// What is known of a value before the graph runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fact {
    /// Element type.
    pub dtype: Option<DataType>,
    /// Sizes, if the rank is known.
    pub shape: Option<Vec<Dim>>,
    /// The contents, if they can never change.
    pub constant: Option<Tensor>,
    /// The elements of an integer tensor of rank 0 or 1, as far as they follow from sizes: what
    /// `Shape`, `Gather`, `Concat`… compute on the way to a `Reshape`.
    pub dims: Option<Vec<Dim>>,
    /// The input is absent.
    pub absent: bool,
}

impl Fact {
    /// Nothing is known.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// An absent optional input.
    pub fn absent() -> Self {
        Self { absent: true, ..Self::default() }
    }

    /// Type and shape.
    pub fn new(dtype: Option<DataType>, shape: Option<Vec<Dim>>) -> Self {
        Self { dtype, shape, ..Self::default() }
    }

    /// A constant.
    pub fn of_constant(tensor: &Tensor) -> Self {
        let shape: Vec<Dim> = tensor.shape().iter().map(|d| Dim::from(*d)).collect();
        let small = shape.len() <= 1 && tensor.n_elements() <= MAX_DIMS;
        let dims = (small && tensor.dtype().is_integer())
            .then(|| tensor.to_i64_vec().ok().map(|v| v.into_iter().map(Dim::from).collect()))
            .flatten();
        let constant = Some(tensor.clone());
        Self { dtype: Some(tensor.dtype()), shape: Some(shape), constant, dims, absent: false }
    }

    /// What the type of a value says.
    pub fn of_type(ty: &ValueType) -> Self {
        match ty.as_tensor() {
            Some(TensorType { dtype, shape }) => Self::new(*dtype, shape.clone()),
            None => Self::unknown(),
        }
    }

    /// An integer tensor of rank 0 or 1 with known elements.
    pub fn of_dims(dtype: DataType, rank: usize, dims: Vec<Dim>) -> Self {
        let shape = if rank == 0 { Vec::new() } else { vec![Dim::from(dims.len())] };
        let mut fact = Self::new(Some(dtype), Some(shape));
        let consts: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
        if let (Some(values), DataType::I64) = (consts, dtype) {
            let sizes: Vec<usize> = if rank == 0 { Vec::new() } else { vec![values.len()] };
            fact.constant = Some(Tensor::from_vec(&sizes, values));
        }
        fact.dims = (dims.len() <= MAX_DIMS).then_some(dims);
        fact
    }

    /// The type, as far as it is known.
    pub fn to_type(&self) -> ValueType {
        if self.dtype.is_none() && self.shape.is_none() {
            return ValueType::Unknown;
        }
        ValueType::Tensor(TensorType { dtype: self.dtype, shape: self.shape.clone() })
    }

    /// The rank, if known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The size of `axis` (negative: from the end), if known.
    pub fn dim(&self, axis: i64) -> Option<&Dim> {
        let shape = self.shape.as_ref()?;
        let index = if axis < 0 { axis + shape.len() as i64 } else { axis };
        shape.get(usize::try_from(index).ok()?)
    }

    /// The integers of a constant.
    pub fn ints(&self) -> Option<Vec<i64>> {
        if let Some(tensor) = &self.constant {
            return tensor.to_i64_vec().ok();
        }
        self.dims.as_ref()?.iter().map(Dim::as_const).collect()
    }
}
