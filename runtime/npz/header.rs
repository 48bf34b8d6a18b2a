//! The header of a `.npy` file: a magic, a version, and a Python dictionary literal.
use super::array::NpyType;

const MAGIC: &[u8] = b"\x93NUMPY";

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub dtype: NpyType,
    pub big_endian: bool,
    pub fortran_order: bool,
    pub shape: Vec<usize>,
}

/// Parses the header at the front of `file`; returns it and the bytes that follow it.
///
/// The error is the end of a sentence that begins with the array's name.
pub(super) fn parse(file: &[u8]) -> Result<(Header, &[u8]), String> {
    let rest = file.strip_prefix(MAGIC).ok_or("is no .npy file")?;
    let cut = "ends within its header";
    let ([major, _minor], rest) = rest.split_first_chunk().ok_or(cut)?;
    let (len, rest) = match major {
        1 => rest.split_first_chunk().map(|(n, rest)| (u16::from_le_bytes(*n) as usize, rest)),
        2 | 3 => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest)),
        _ => return Err(format!("has version {major} of the .npy format, which is unknown")),
    }
    .ok_or(cut)?;
    let (text, data) = rest.split_at_checked(len).ok_or(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| "has a header that is no text")?;
    Ok((parse_dict(text)?, data))
}

fn parse_dict(text: &str) -> Result<Header, String> {
    let descr = field(text, "descr").ok_or("has no descr in its header")?;
    let descr = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')).map(|(d, _)| d);
    let descr = descr.ok_or("is a structured array, which is not supported")?;
    let order = field(text, "fortran_order").ok_or("has no fortran_order in its header")?;
    let shape = field(text, "shape").ok_or("has no shape in its header")?;
    let code = descr.trim_start_matches(['<', '>', '|', '=']);
    let dtype = NpyType::from_code(code)
        .ok_or_else(|| format!("has the type \"{descr}\", which is not supported"))?;
    Ok(Header {
        dtype,
        big_endian: descr.starts_with('>'),
        fortran_order: order.starts_with("True"),
        shape: parse_shape(shape)?,
    })
}

/// What follows `'key':` in a Python dictionary literal.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("'{key}'"))?;
    Some(after.trim_start().strip_prefix(':')?.trim_start())
}

/// Parses a Python tuple of integers, for instance `(2, 3)`, `(5,)` or `()`.
fn parse_shape(text: &str) -> Result<Vec<usize>, String> {
    let inside = text.strip_prefix('(').and_then(|t| t.split_once(')')).map(|(inside, _)| inside);
    let extents = inside.ok_or("has a shape that is no tuple")?.split(',').map(str::trim);
    extents
        .filter(|extent| !extent.is_empty())
        .map(|extent| extent.parse().map_err(|_| format!("has the extent \"{extent}\"")))
        .collect()
}

/// A version 1.0 header for a row-major, little-endian array, padded to a multiple of 64 bytes.
pub(super) fn write(dtype: NpyType, shape: &[usize]) -> Vec<u8> {
    let order = if dtype.size() == 1 { '|' } else { '<' };
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    // NumPy writes (5,) and (2, 3): the comma stays only where Python needs it.
    let extents =
        if shape.len() == 1 { extents.trim_end() } else { extents.trim_end_matches(", ") };
    let code = dtype.code();
    let mut dict =
        format!("{{'descr': '{order}{code}', 'fortran_order': False, 'shape': ({extents}), }}");
    let prefix = MAGIC.len() + 4;
    let padding = 64 - (prefix + dict.len() + 1) % 64;
    dict.push_str(&" ".repeat(padding % 64));
    dict.push('\n');
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend((dict.len() as u16).to_le_bytes());
    header.extend(dict.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_headers_are_aligned_and_read_back() {
        for shape in [vec![], vec![5], vec![2, 3], vec![1, 0, 49152]] {
            let mut file = write(NpyType::F16, &shape);
            assert_eq!(file.len() % 64, 0, "{shape:?}");
            file.push(7);
            let (header, data) = parse(&file).unwrap();
            assert_eq!((header.dtype, &header.shape, data), (NpyType::F16, &shape, &[7u8][..]));
        }
    }

    #[test]
    fn numpys_own_spelling_of_the_dictionary_is_written() {
        let text = |shape: &[usize]| {
            String::from_utf8_lossy(&write(NpyType::U8, shape)[10..]).into_owned()
        };
        assert!(
            text(&[5]).starts_with("{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }")
        );
        assert!(text(&[2, 3]).contains("'shape': (2, 3), }"));
        assert!(text(&[]).contains("'shape': (), }"));
    }

    #[test]
    fn damaged_headers_are_errors() {
        let good = write(NpyType::F32, &[2, 3]);
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "{len}");
        }
        let bad = |dict: &str| parse_dict(dict).unwrap_err();
        assert!(bad("{'descr': '<c8', 'fortran_order': False, 'shape': ()}").contains("\"<c8\""));
        assert!(bad("{'descr': [('a', '<f4')], 'fortran_order': False}").contains("structured"));
        assert!(bad("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}").contains("\"-1\""));
    }
}
