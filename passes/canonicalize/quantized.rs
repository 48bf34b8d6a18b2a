//! Products and lookups of ONNX Runtime whose weights are codes.

use std::collections::HashMap;

use planish_ir::{DataType, Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::MICROSOFT;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// Lifts `MatMulNBits` and `GatherBlockQuantized` of constants to standard operators on INT4 and
/// INT8 codes: `MatMul(x, Transpose(DequantizeLinear(codes [N, K])))`, and a `Gather` of codes that
/// is multiplied by a `Gather` of scales. Blocks of a row that share one scale become one scale a
/// row. What has zero points elsewhere than in the middle stays as it is.
pub(super) fn lift_quantized(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let mut tables = Tables::default();
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        if node.domain != MICROSOFT {
            continue;
        }
        let lifted = match node.op_type.as_str() {
            "MatMulNBits" => lift_product(graph, &mut tables, id),
            "GatherBlockQuantized" => lift_lookup(graph, &mut tables, id),
            _ => continue,
        };
        match lifted {
            Ok(()) => n_rewrites += 1,
            Err(reason) => context.note(format!("{}: {reason}", graph.node(id).describe())),
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// Codes that were unpacked before, by the bytes that they come from: those of a head and an
/// embedding may be the same.
#[derive(Default)]
struct Tables(HashMap<(usize, usize), Table>);

/// A weight as signed codes with a scale for each row or each block of one.
#[derive(Clone)]
struct Table {
    /// INT4 or INT8 `[rows, columns]`.
    codes: ValueId,
    /// f32 `[rows]` or `[rows, blocks]`.
    scales: ValueId,
    /// 0 where a row has one scale.
    block_size: usize,
    columns: usize,
}

/// How a weight is packed.
struct Packing {
    rows: usize,
    columns: usize,
    bits: usize,
    block_size: usize,
}

impl Packing {
    fn n_blocks(&self) -> usize {
        self.columns.div_ceil(self.block_size)
    }

    /// The zero point is in the middle of the range, given or not.
    fn check_zero_points(&self, zeros: Option<&Tensor>) -> Result<(), String> {
        let Some(zeros) = zeros else { return Ok(()) };
        let middle = if self.bits == 4 { 0x88u8 } else { 0x80 };
        let half_used = self.bits == 4 && self.n_blocks() % 2 == 1;
        let row = (self.n_blocks() * self.bits).div_ceil(8).max(1);
        let is_middle = |(i, byte): (usize, &u8)| {
            let last = half_used && i % row == row - 1;
            *byte == middle || last && byte & 0xF == middle & 0xF
        };
        match zeros.dtype() {
            DataType::U8 if zeros.bytes().iter().enumerate().all(is_middle) => Ok(()),
            _ => Err("its zero points are not in the middle of the codes".into()),
        }
    }

    /// Signed codes `[rows, columns]`.
    fn unpack(&self, data: &Tensor) -> Result<Tensor, String> {
        let stride = self.n_blocks() * self.block_size;
        let bytes = data.bytes();
        let expected = self.rows * stride * self.bits / 8;
        // A lookup's rows are not filled up.
        let tight = self.rows * self.columns * self.bits / 8;
        let stride = if bytes.len() == expected { stride } else { self.columns };
        if bytes.len() != expected && bytes.len() != tight {
            return Err(format!("its codes have the shape {:?}", data.shape()));
        }
        let shape = vec![self.rows, self.columns];
        let flipped = |mask: u8| bytes.iter().map(|byte| byte ^ mask).collect::<Vec<u8>>();
        let tensor = match self.bits {
            8 if stride == self.columns => Tensor::new(DataType::I8, shape, flipped(0x80).into()),
            4 if stride == self.columns => Tensor::new(DataType::I4, shape, flipped(0x88).into()),
            8 => {
                let rows = bytes.chunks_exact(stride).flat_map(|row| &row[..self.columns]);
                let codes: Vec<u8> = rows.map(|byte| byte ^ 0x80).collect();
                Tensor::new(DataType::I8, shape, codes.into())
            }
            _ => {
                let code = |i: usize| {
                    let at = i / self.columns * stride + i % self.columns;
                    ((bytes[at / 2] >> (4 * (at % 2))) & 0xF) as i8 - 8
                };
                let codes: Vec<i8> = (0..self.rows * self.columns).map(code).collect();
                Ok(Tensor::from_int4_codes(&shape, &codes))
            }
        };
        tensor.map_err(|error| error.to_string())
    }

    /// Scales `[rows]`, or `[rows, blocks]` and the size of a block.
    fn scales(&self, scales: &Tensor) -> Result<(Tensor, usize), String> {
        let values = scales.to_f32_vec().map_err(|error| error.to_string())?;
        let n_blocks = self.n_blocks();
        if values.len() != self.rows * n_blocks {
            return Err(format!("its scales have the shape {:?}", scales.shape()));
        }
        let mut rows = values.chunks(n_blocks.max(1));
        if rows.clone().all(|row| row.iter().all(|scale| *scale == row[0])) {
            let firsts: Vec<f32> = rows.by_ref().map(|row| row[0]).collect();
            return Ok((Tensor::from_vec(&[self.rows], firsts), 0));
        }
        if !self.columns.is_multiple_of(self.block_size) {
            return Err("its last block is not whole".into());
        }
        Ok((Tensor::from_vec(&[self.rows, n_blocks], values), self.block_size))
    }
}

impl Tables {
    fn get(
        &mut self,
        graph: &mut Graph,
        node: &Node,
        [data, scales]: [usize; 2],
        zeros: Option<usize>,
        packing: &Packing,
    ) -> Result<Table, String> {
        let constant = |index: usize| node.input(index).and_then(|v| graph.constant(v));
        let zero_input = zeros.and_then(|index| node.input(index));
        let zeros = zero_input.map(|v| graph.constant(v).ok_or("its zero points vary"));
        packing.check_zero_points(zeros.transpose()?)?;
        let source = node.input(data).ok_or("its codes are absent")?;
        let (Some(data), Some(scales)) = (constant(data), constant(scales)) else {
            return Err("its codes or scales are no constants".into());
        };
        let key = (data.bytes().as_ptr() as usize, data.bytes().len());
        if let Some(table) = self.0.get(&key).filter(|table| table.columns == packing.columns) {
            return Ok(table.clone());
        }
        let codes = packing.unpack(data)?;
        let (scales, block_size) = packing.scales(scales)?;
        let name = graph.value(source).name.clone();
        let table = Table {
            codes: graph.add_constant(&format!("{name}_codes"), codes),
            scales: graph.add_constant(&format!("{name}_scale"), scales),
            block_size,
            columns: packing.columns,
        };
        self.0.insert(key, table.clone());
        Ok(table)
    }
}

fn size(node: &Node, name: &str, default: i64) -> Result<usize, String> {
    let size = usize::try_from(node.int(name, default)).ok().filter(|n| *n > 0);
    size.ok_or_else(|| format!("its attribute {name} is not positive"))
}

/// `MatMulNBits(x, codes, scales, zero points?, -, bias?)`.
fn lift_product(graph: &mut Graph, tables: &mut Tables, id: NodeId) -> Result<(), String> {
    let node = graph.node(id).clone();
    let packing = Packing {
        rows: size(&node, "N", 0)?,
        columns: size(&node, "K", 0)?,
        bits: size(&node, "bits", 4)?,
        block_size: size(&node, "block_size", 0)?,
    };
    if !matches!(packing.bits, 4 | 8) || node.input(4).is_some() {
        return Err("it has codes of other than 4 or 8 bits, or an index of groups".into());
    }
    let bias = node.input(5);
    if bias.is_some_and(|bias| graph.constant(bias).is_none()) {
        return Err("its bias is no constant".into());
    }
    let table = tables.get(graph, &node, [1, 2], Some(3), &packing)?;
    let weight = dequantized(graph, &table);
    let product = Node::new("MatMul", vec![node.input(0), Some(weight)]);
    match bias {
        None => {
            let product = product.with_name(node.name.clone()).with_outputs(node.outputs);
            graph.replace_node(id, product).map_err(|error| error.to_string())?;
        }
        Some(bias) => {
            let hint = format!("{}/product", node.name);
            let product = graph.add_op(&hint, product.with_name(node.name.clone()));
            let add = Node::new("Add", vec![Some(product), Some(bias)]);
            let add = add.with_name(format!("{}/bias", node.name)).with_outputs(node.outputs);
            graph.replace_node(id, add).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// The weight `[K, N]` of a table `[N, K]`.
fn dequantized(graph: &mut Graph, table: &Table) -> ValueId {
    let name = graph.value(table.codes).name.clone();
    let node = Node::new("DequantizeLinear", vec![Some(table.codes), Some(table.scales)]);
    let node = match table.block_size {
        0 => node.with("axis", 0i64),
        size => node.with("axis", 1i64).with("block_size", size as i64),
    };
    let float = graph.add_op(&format!("{name}_float"), node);
    let turn = Node::new("Transpose", vec![Some(float)]).with("perm", vec![1, 0]);
    graph.add_op(&format!("{name}_turned"), turn)
}

/// `GatherBlockQuantized(codes, ids, scales, zero points?)`.
fn lift_lookup(graph: &mut Graph, tables: &mut Tables, id: NodeId) -> Result<(), String> {
    let node = graph.node(id).clone();
    let data = node.input(0).and_then(|v| graph.constant(v)).ok_or("its codes are no constant")?;
    let bits = match data.dtype() {
        DataType::U8 => size(&node, "bits", 4)?,
        DataType::U4 => 4,
        other => return Err(format!("its codes are of type {other}")),
    };
    let [rows, width] = data.shape()[..] else {
        return Err(format!("its codes have the shape {:?}", data.shape()));
    };
    let packs = data.dtype() == DataType::U8 && bits == 4;
    let columns = if packs { 2 * width } else { width };
    let by_rows = node.int("gather_axis", 0) == 0 && matches!(node.int("quantize_axis", 1), 1 | -1);
    if !by_rows || !matches!(bits, 4 | 8) {
        return Err("it does not look rows up whose blocks follow each other".into());
    }
    let packing = Packing { rows, columns, bits, block_size: size(&node, "block_size", 128)? };
    let table = tables.get(graph, &node, [0, 2], Some(3), &packing)?;
    let table = Table { codes: whole_bytes(graph, table.codes)?, ..table };
    let (Some(ids), Some(output)) = (node.input(1), node.output(0)) else {
        return Err("an input is absent".into());
    };
    let name = graph.value(output).name.clone();
    let gather = |table| Node::new("Gather", vec![Some(table), Some(ids)]).with("axis", 0i64);
    let codes = graph.add_op(&format!("{name}_codes"), gather(table.codes));
    let to = i64::from(DataType::F32.to_onnx());
    let cast = Node::new("Cast", vec![Some(codes)]).with("to", to);
    let mut codes = graph.add_op(&format!("{name}_codes"), cast);
    let column = column_of(graph, &table, &name);
    let scales = graph.add_op(&format!("{name}_scales"), gather(column));
    if table.block_size > 0 {
        let blocks = (columns / table.block_size) as i64;
        let shape = graph.add_constant(
            &format!("{name}_blocks"),
            int64s(&[0, 0, blocks, table.block_size as i64]),
        );
        let split = Node::new("Reshape", vec![Some(codes), Some(shape)]);
        codes = graph.add_op(&format!("{name}_blocks"), split);
    }
    let product = Node::new("Mul", vec![Some(codes), Some(scales)]);
    let last = match table.block_size {
        0 => product,
        _ => {
            let rows = graph.add_op(&format!("{name}_scaled"), product);
            let shape = graph.add_constant(&format!("{name}_row"), int64s(&[0, 0, columns as i64]));
            Node::new("Reshape", vec![Some(rows), Some(shape)])
        }
    };
    let last = last.with_name(node.name.clone()).with_outputs(node.outputs);
    graph.replace_node(id, last).map_err(|error| error.to_string())?;
    Ok(())
}

/// Codes that `Gather` takes: INT8.
fn whole_bytes(graph: &mut Graph, codes: ValueId) -> Result<ValueId, String> {
    let tensor = graph.constant(codes).ok_or("no codes")?;
    if tensor.dtype() == DataType::I8 {
        return Ok(codes);
    }
    let values = tensor.to_i64_vec().map_err(|error| error.to_string())?;
    let bytes: Vec<i8> = values.into_iter().map(|code| code as i8).collect();
    let widened = Tensor::from_vec(tensor.shape(), bytes);
    let name = format!("{}_bytes", graph.value(codes).name);
    Ok(graph.add_constant(&name, widened))
}

/// The scales as `[rows, 1]`, or `[rows, blocks, 1]`, of which rows are looked up.
fn column_of(graph: &mut Graph, table: &Table, name: &str) -> ValueId {
    let axis = if table.block_size == 0 { 1 } else { 2 };
    let axes = graph.add_constant(&format!("{name}_axes"), int64s(&[axis]));
    let column = Node::new("Unsqueeze", vec![Some(table.scales), Some(axes)]);
    graph.add_op(&format!("{name}_scale"), column)
}
