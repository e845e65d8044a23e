//! The safetensors format: the length of a JSON header in eight bytes, the header, and the tensors' bytes.
//! <https://github.com/huggingface/safetensors#format>

use super::quoted;
use super::stored::Placed;
use anyhow::{ensure, Context, Result};
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use std::collections::HashMap;

/// Size of the header's length field at the start of the file.
const LENGTH_SIZE: usize = 8;

/// Maximum header size, enough for a hundred thousand tensors. A parsed header takes about ten times its length in
/// memory; the safetensors crate allows 100 MB.
const MAX_HEADER_SIZE: usize = 16 << 20;

/// The header in the file: an object with one field per tensor.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: HashMap<String, TensorInfo>,
}

/// Where each tensor of the file is.
///
/// Parses the header with the crate's types and layout checks, but not with its `read_metadata`, which adds up the
/// claimed sizes unchecked and does not say which tensor is wrong.
///
/// # Errors
/// If the file is cut off, the header is invalid, or the tensors do not fill the rest of the file exactly.
pub(super) fn read(file: &[u8]) -> Result<Vec<(String, Placed)>> {
    let (header, data_start) = header(file)?;
    let data = &file[data_start..];
    let mut placed = Vec::with_capacity(header.tensors.len());
    for (name, info) in &header.tensors {
        let tensor = place(info, data_start, data.len()).with_context(|| format!("tensor {}", quoted(name)))?;
        placed.push((name.clone(), tensor));
    }
    let mut tensors: Vec<_> = header.tensors.into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let layout = Metadata::new(header.metadata, tensors)
        .context("the tensors' data_offsets overlap or leave a hole: the file is damaged")?;
    ensure!(
        layout.data_len() == data.len(),
        "its header describes {} bytes of tensors, but {} follow: the file is damaged or cut off; download it again",
        layout.data_len(),
        data.len()
    );
    Ok(placed)
}

/// The header, and the position of the first byte after it.
fn header(file: &[u8]) -> Result<(Header, usize)> {
    let length = file
        .first_chunk::<LENGTH_SIZE>()
        .with_context(|| format!("it has {} bytes, too few for a safetensors file; download it again", file.len()))?;
    let length = u64::from_le_bytes(*length);
    let rest = file.len() - LENGTH_SIZE;
    let length = usize::try_from(length).ok().filter(|&length| length <= rest).with_context(|| {
        format!(
            "it claims a header of {length} bytes, but only {rest} follow: it is cut off or not a safetensors file; \
             download it again"
        )
    })?;
    ensure!(length <= MAX_HEADER_SIZE, "it claims a header of {length} bytes, more than any checkpoint's");
    let end = LENGTH_SIZE + length;
    let header = serde_json::from_slice(&file[LENGTH_SIZE..end]).context("its header is not valid")?;
    Ok((header, end))
}

fn place(info: &TensorInfo, data_start: usize, data_len: usize) -> Result<Placed> {
    let (begin, end) = info.data_offsets;
    ensure!(
        begin <= end && end <= data_len,
        "its data_offsets [{begin}, {end}] do not lie in the {data_len} bytes after the header: \
         the file is damaged or cut off; download it again"
    );
    Placed::contiguous(info.dtype, info.shape.clone(), data_start + begin..data_start + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn error(file: &[u8]) -> String {
        format!("{:#}", read(file).unwrap_err())
    }

    #[test]
    fn finds_each_tensor() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
            "b":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}"#;
        let file = file(header, &[1; 12]);
        let mut tensors = read(&file).unwrap();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(tensors[1].1.shape(), [1, 2]);
        assert_eq!(tensors[0].1.view(&file).bytes, [1; 8]);
    }

    #[test]
    fn names_what_is_wrong() {
        let tensor = |name: &str, shape: &str, offsets: &str| {
            format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#)
        };
        let one = |shape: &str, offsets: &str| file(&format!("{{{}}}", tensor("w", shape, offsets)), &[0; 16]);
        let two =
            |a: &str, b: &str| file(&format!("{{{},{}}}", tensor("a", "[2]", a), tensor("b", "[2]", b)), &[0; 16]);
        assert!(read(&one("[2,2]", "[0,16]")).is_ok());
        for (file, expected) in [
            (vec![], "it has 0 bytes"),
            (vec![0; 7], "it has 7 bytes"),
            (u64::MAX.to_le_bytes().to_vec(), "claims a header of 18446744073709551615 bytes, but only 0 follow"),
            ((1u64 << 41).to_le_bytes().to_vec(), "claims a header of 2199023255552 bytes"),
            (file(&" ".repeat(MAX_HEADER_SIZE + 1), &[]), "claims a header of 16777217 bytes, more than any"),
            (file("{\"w\":", &[]), "its header is not valid"),
            (file(&"[".repeat(100_000), &[]), "its header is not valid"),
            (file("{\"w\":1}", &[]), "its header is not valid"),
            (one("[-2]", "[0,16]"), "its header is not valid"),
            (one("[4]", "[0,99]"), "tensor \"w\": its data_offsets [0, 99]"),
            (one("[4]", "[16,0]"), "tensor \"w\": its data_offsets [16, 0]"),
            (one("[3]", "[0,16]"), "tensor \"w\": its shape [3] of F32 takes 12 bytes, but has 16 in the file"),
            (one("[4294967296,4294967296]", "[0,16]"), "tensor \"w\": its shape [4294967296, 4294967296] has more"),
            (one("[3]", "[0,12]"), "describes 12 bytes of tensors, but 16 follow"),
            (two("[0,8]", "[4,12]"), "overlap or leave a hole"),
            (two("[0,8]", "[0,8]"), "overlap or leave a hole"),
            (two("[8,16]", "[8,16]"), "overlap or leave a hole"),
        ] {
            let message = error(&file);
            assert!(message.contains(expected), "{message}\nlacks {expected}");
        }
    }
}
