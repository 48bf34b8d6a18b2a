//! Writes small GGUF files for tests.

/// Collects metadata and tensors, then lays them out as the specification says.
pub(crate) struct Builder {
    version: u32,
    metadata: Vec<Vec<u8>>,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    axes: Vec<u64>,
    number: u32,
    data: Vec<u8>,
}

impl Builder {
    pub(crate) fn new(version: u32) -> Self {
        Self { version, metadata: Vec::new(), tensors: Vec::new() }
    }

    /// An entry whose type number and value are given as bytes.
    pub(crate) fn raw(mut self, key: &str, value: &[u8]) -> Self {
        self.metadata.push([&string(key)[..], value].concat());
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, &[4u32.to_le_bytes(), value.to_le_bytes()].concat())
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, &[&8u32.to_le_bytes()[..], &string(value)].concat())
    }

    pub(crate) fn text_array(self, key: &str, values: &[&str]) -> Self {
        let mut bytes = [9u32.to_le_bytes(), 8u32.to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| string(value)));
        self.raw(key, &bytes)
    }

    /// A tensor with `axes` innermost first, of ggml's type `number`.
    pub(crate) fn tensor(mut self, name: &str, axes: &[u64], number: u32, data: &[u8]) -> Self {
        self.tensors.push(Tensor {
            name: name.into(),
            axes: axes.into(),
            number,
            data: data.into(),
        });
        self
    }

    pub(crate) fn build(self) -> Vec<u8> {
        self.build_aligned(32)
    }

    pub(crate) fn build_aligned(self, alignment: usize) -> Vec<u8> {
        let mut header = b"GGUF".to_vec();
        header.extend(self.version.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        header.extend(self.metadata.concat());
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(alignment), 0);
            header.extend(string(&tensor.name));
            header.extend((tensor.axes.len() as u32).to_le_bytes());
            header.extend(tensor.axes.iter().flat_map(|axis| axis.to_le_bytes()));
            header.extend(tensor.number.to_le_bytes());
            header.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        header.resize(header.len().next_multiple_of(alignment), 0);
        [header, data].concat()
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
