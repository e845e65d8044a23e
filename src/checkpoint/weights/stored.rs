//! A tensor as its file stores it, and its conversion for candle.

use anyhow::{bail, ensure, Context, Result};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use std::borrow::Cow;
use std::ops::Range;

/// More dimensions than any weight of a network has.
const MAX_RANK: usize = 16;

/// Where a file stores one tensor; each format's reader returns one per name. Only created by [`Placed::contiguous`]
/// and [`Placed::strided`], which check it against the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Stride of each dimension in elements; `None` if the tensor is contiguous in C order.
    strides: Option<Vec<usize>>,
    /// Position in the file, from the first element to the end of the last one.
    bytes: Range<usize>,
}

/// A view of a tensor in its file, without conversion.
#[derive(Debug, Clone, Copy)]
pub struct StoredTensor<'a> {
    /// The element type, under safetensors' name in any format.
    pub dtype: Dtype,
    /// The dimensions.
    pub shape: &'a [usize],
    /// Stride of each dimension in elements; `None` if the tensor is contiguous in C order.
    pub strides: Option<&'a [usize]>,
    /// Little-endian elements, from the tensor's first to its last; nothing else in between if it is contiguous. Not
    /// necessarily aligned.
    pub bytes: &'a [u8],
}

impl Placed {
    /// A tensor in C order in exactly the bytes `bytes` of the file.
    ///
    /// # Errors
    /// If shape and element type need a different number of bytes.
    pub(super) fn contiguous(dtype: Dtype, shape: Vec<usize>, bytes: Range<usize>) -> Result<Placed> {
        check_rank(shape.len())?;
        let bits = num_elements(&shape).and_then(|n| n.checked_mul(dtype.bitsize()));
        let bits = bits.with_context(|| format!("its shape {shape:?} has more elements than fit into memory"))?;
        ensure!(
            bits % 8 == 0 && bits / 8 == bytes.len(),
            "its shape {shape:?} of {dtype} takes {} bytes, but has {} in the file",
            bits.div_ceil(8),
            bytes.len()
        );
        Ok(Placed { dtype, shape, strides: None, bytes })
    }

    /// A view as PyTorch describes it: `shape` and `strides` from element `offset` of a storage at the bytes `storage`
    /// of the file. All numbers come from the file; negative ones are refused.
    ///
    /// # Errors
    /// If the view exceeds the storage, or repeats elements so that it is larger than the storage
    /// (`torch.Tensor.expand`): such a view could need any amount of memory.
    pub(super) fn strided(
        dtype: Dtype,
        shape: &[i64],
        strides: &[i64],
        offset: i64,
        storage: Range<usize>,
    ) -> Result<Placed> {
        check_rank(shape.len().max(strides.len()))?;
        ensure!(
            shape.len() == strides.len(),
            "its shape {shape:?} and its strides {strides:?} differ in number of dimensions"
        );
        let element_size = dtype.bitsize() / 8;
        let stored = storage.len() / element_size;
        let shape = non_negative(shape).with_context(|| format!("its shape {shape:?} has a negative dimension"))?;
        let strides = non_negative(strides).with_context(|| format!("its strides {strides:?} are negative"))?;
        let offset = usize::try_from(offset).with_context(|| format!("its storage offset {offset} is negative"))?;
        let elements = num_elements(&shape)
            .with_context(|| format!("its shape {shape:?} has more elements than fit into memory"))?;
        let span = span(&shape, &strides).filter(|span| offset.checked_add(*span).is_some_and(|end| end <= stored));
        let span = span.with_context(|| {
            format!("its shape {shape:?} with strides {strides:?} from element {offset} exceeds its storage of {stored} elements")
        })?;
        ensure!(
            elements <= stored,
            "its shape {shape:?} repeats the {stored} elements of its storage: save it with .contiguous()"
        );
        let start = storage.start + offset * element_size;
        let is_contiguous = is_c_order(&shape, &strides);
        Ok(Placed {
            dtype,
            shape,
            strides: (!is_contiguous).then_some(strides),
            bytes: start..start + span * element_size,
        })
    }

    /// The dimensions.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes of all elements in C order.
    pub(super) fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * (self.dtype.bitsize() / 8)
    }

    /// The bytes of the file that contain the elements.
    pub(super) fn bytes(&self) -> Range<usize> {
        self.bytes.clone()
    }

    /// The bytes of the elements if they are stored contiguously as float32 in this machine's byte order, otherwise
    /// `None`.
    pub(super) fn contiguous_float32s(&self) -> Option<Range<usize>> {
        let is_native = self.dtype == Dtype::F32 && self.strides.is_none() && cfg!(target_endian = "little");
        is_native.then(|| self.bytes.clone())
    }

    /// The view of `file`, the content of the file that this was read from.
    pub(super) fn view<'a>(&'a self, file: &'a [u8]) -> StoredTensor<'a> {
        let bytes = file.get(self.bytes.clone()).expect("checked against the file's length when it was opened");
        StoredTensor { dtype: self.dtype, shape: &self.shape, strides: self.strides.as_deref(), bytes }
    }
}

/// `None` if a number is negative.
fn non_negative(numbers: &[i64]) -> Option<Vec<usize>> {
    numbers.iter().map(|&n| usize::try_from(n).ok()).collect()
}

/// The number of elements, or `None` if it exceeds the address space. The other dimensions of an empty tensor must fit
/// too: candle multiplies them for its strides.
fn num_elements(shape: &[usize]) -> Option<usize> {
    let product = shape.iter().try_fold(1usize, |product, &dimension| product.checked_mul(dimension.max(1)))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

/// Refuses shapes with more dimensions than any tensor.
fn check_rank(rank: usize) -> Result<()> {
    ensure!(rank <= MAX_RANK, "it has {rank} dimensions, more than any weight");
    Ok(())
}

/// Number of elements from the first to the last, inclusive; 0 for an empty tensor.
fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().zip(strides).try_fold(1usize, |span, (dimension, stride)| {
        (dimension - 1).checked_mul(*stride).and_then(|step| span.checked_add(step))
    })
}

/// Whether the elements are contiguous in C order; the stride of a dimension of size 1 does not matter.
fn is_c_order(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(&dimension, &stride)| {
            let fits = dimension == 1 || stride == expected;
            expected *= dimension;
            fits
        })
}

impl<'a> StoredTensor<'a> {
    /// The elements in C order: the file's own bytes if the tensor is contiguous, otherwise a copy.
    pub fn c_order(&self) -> Cow<'a, [u8]> {
        match self.strides {
            None => Cow::Borrowed(self.bytes),
            Some(strides) => Cow::Owned(gather(self.bytes, self.dtype.bitsize() / 8, self.shape, strides)),
        }
    }

    /// Appends the elements `range`, counted in C order, as float32, converted like PyTorch's `.float()`.
    ///
    /// # Errors
    /// As for [`StoredTensor::to_tensor`].
    ///
    /// # Panics
    /// If `range` exceeds the last element.
    pub fn extend_float32s(&self, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let size = self.dtype.bitsize() / 8;
        let bytes = self.c_order();
        let bytes = &bytes[range.start * size..range.end * size];
        match self.dtype {
            Dtype::F16 => out.extend(bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32())),
            Dtype::BF16 => out.extend(bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32())),
            Dtype::F32 => out.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
            Dtype::F64 => out.extend(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32)),
            other => bail!("it holds {other}, but weights are F16, BF16, F32 or F64"),
        }
        Ok(())
    }

    /// The tensor in `dtype` on `device`, converted like PyTorch's `.float()` followed by `.half()` or `.bfloat16()`.
    ///
    /// # Errors
    /// If the stored elements are not floating-point numbers of 16 bits or more, or the device fails.
    pub fn to_tensor(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        let count = self.shape.iter().product();
        let mut values = Vec::with_capacity(count);
        self.extend_float32s(0..count, &mut values)?;
        // PyTorch also converts float64 to the 16-bit types through float32, so both round alike. A 16-bit type is
        // exact in float32.
        Ok(Tensor::from_vec(values, self.shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }
}

/// Copies the elements of a strided view into C order.
fn gather(bytes: &[u8], element_size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let elements: usize = shape.iter().product();
    let mut out = Vec::with_capacity(elements * element_size);
    let mut index = vec![0; shape.len()];
    for _ in 0..elements {
        let position: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(&bytes[position * element_size..(position + 1) * element_size]);
        for (i, &dimension) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < dimension {
                break;
            }
            *i = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
        numbers.into_iter().flat_map(f32::to_le_bytes).collect()
    }

    fn values(placed: &Placed, file: &[u8]) -> Vec<f32> {
        let tensor = placed.view(file).to_tensor(DType::F32, &Device::Cpu).unwrap();
        assert_eq!(tensor.dims(), placed.shape());
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn strided(shape: &[i64], strides: &[i64], offset: i64) -> Result<Placed> {
        Placed::strided(Dtype::F32, shape, strides, offset, 4..4 + 12 * 4)
    }

    #[test]
    fn reads_views_in_c_order() {
        let file = [vec![0; 4], floats((0..12).map(|i| i as f32))].concat();
        let whole = strided(&[3, 4], &[4, 1], 0).unwrap();
        assert!(whole.view(&file).strides.is_none());
        assert_eq!(values(&whole, &file), (0..12).map(|i| i as f32).collect::<Vec<_>>());
        let transposed = strided(&[4, 3], &[1, 4], 0).unwrap();
        assert_eq!(values(&transposed, &file)[..4], [0.0, 4.0, 8.0, 1.0]);
        let sliced = strided(&[2, 2], &[4, 2], 5).unwrap();
        assert_eq!(values(&sliced, &file), [5.0, 7.0, 9.0, 11.0]);
        let one_row = strided(&[1, 4], &[9, 1], 8).unwrap();
        assert!(one_row.view(&file).strides.is_none(), "the stride of a dimension of size 1 does not matter");
        assert_eq!(values(&one_row, &file), [8.0, 9.0, 10.0, 11.0]);
        assert_eq!(values(&strided(&[], &[], 7).unwrap(), &file), [7.0]);
        assert!(values(&strided(&[0, 4], &[4, 1], 12).unwrap(), &file).is_empty());
    }

    #[test]
    fn refuses_views_that_exceed_or_repeat_the_storage() {
        let message = |result: Result<Placed>| format!("{:#}", result.unwrap_err());
        for (shape, strides, offset, expected) in [
            (&[3i64, 4][..], &[4i64, 1][..], 1, "exceeds its storage of 12 elements"),
            (&[3, 4], &[4, 2], 0, "exceeds its storage"),
            (&[2], &[i64::MAX], 0, "exceeds its storage"),
            (&[3], &[i64::MAX], 0, "exceeds its storage"),
            (&[1], &[1], 12, "exceeds its storage"),
            (&[0], &[1], 13, "exceeds its storage"),
            (&[3, 4], &[1], 0, "differ in number of dimensions"),
            (&[-3, 4], &[4, 1], 0, "negative dimension"),
            (&[3, 4], &[-4, 1], 0, "are negative"),
            (&[3, 4], &[4, 1], -1, "storage offset -1 is negative"),
            (&[1 << 40], &[0], 0, "repeats the 12 elements"),
            (&[1 << 40, 1 << 40], &[0, 0], 0, "more elements than fit into memory"),
        ] {
            let message = message(strided(shape, strides, offset));
            assert!(message.contains(expected), "{shape:?} {strides:?} {offset}: {message}");
        }
    }

    #[test]
    fn refuses_a_shape_of_another_size_than_its_bytes() {
        let message =
            |shape: &[usize]| format!("{:#}", Placed::contiguous(Dtype::F32, shape.to_vec(), 8..24).unwrap_err());
        assert!(message(&[5]).contains("takes 20 bytes, but has 16 in the file"));
        assert!(message(&[1 << 62, 4]).contains("more elements than fit into memory"));
        assert!(message(&[0, 1 << 62, 1 << 62]).contains("more elements than fit into memory"));
        assert!(message(&[1; 17]).contains("it has 17 dimensions"));
        assert!(message(&[1 << 62]).contains("more elements than fit into memory"));
        assert!(Placed::contiguous(Dtype::F32, vec![2, 2], 8..24).is_ok());
    }

    #[test]
    fn converts_as_pytorch_does() {
        // Bit patterns: 1.0, the largest finite, the smallest subnormal, -0.0 and infinity of each type.
        let half = [0x3c00u16, 0x7bff, 0x0001, 0x8000, 0x7c00].map(u16::to_le_bytes).concat();
        let placed = Placed::contiguous(Dtype::F16, vec![5], 0..10).unwrap();
        let expected = [1.0, 65504.0, 2f32.powi(-24), -0.0, f32::INFINITY];
        assert_eq!(values(&placed, &half).map_bits(), expected.to_vec().map_bits());
        let bfloat = [0x3f80u16, 0x7f7f, 0x0001, 0x8000, 0x7f80].map(u16::to_le_bytes).concat();
        let placed = Placed::contiguous(Dtype::BF16, vec![5], 0..10).unwrap();
        let expected = [1.0, f32::from_bits(0x7f7f_0000), f32::from_bits(0x0001_0000), -0.0, f32::INFINITY];
        assert_eq!(values(&placed, &bfloat).map_bits(), expected.to_vec().map_bits());
        // 1 + 2^-24 lies halfway between two float32 numbers and rounds to the even one; a bit more rounds up.
        let double =
            [1.0 + 2f64.powi(-24), 1.0 + 2f64.powi(-24) + 2f64.powi(-40), 1e300].map(f64::to_le_bytes).concat();
        let placed = Placed::contiguous(Dtype::F64, vec![3], 0..24).unwrap();
        assert_eq!(values(&placed, &double), [1.0, 1.0 + f32::EPSILON, f32::INFINITY]);
    }

    trait MapBits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl MapBits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }

    #[test]
    fn refuses_elements_that_are_not_floating_point() {
        let placed = Placed::contiguous(Dtype::I64, vec![1], 0..8).unwrap();
        let error = placed.view(&[0; 8]).to_tensor(DType::F32, &Device::Cpu).unwrap_err();
        assert_eq!(format!("{error:#}"), "it holds I64, but weights are F16, BF16, F32 or F64");
    }
}
