//! One register of float32 lanes: what the kernels are written in, so that one text serves every instruction set.

/// A vector register of an instruction set and what can be done with it.
///
/// Every method is inlined into a function that has the instruction set's features enabled (`run` of each level); the
/// methods themselves carry none, as a trait's methods cannot. That is also why everything generic over `Simd` is
/// `#[inline(always)]`: a body left outside such a function would be compiled without the features.
///
/// # Safety
/// Calling any method needs a processor with the instruction set's features. Pointers must be valid for the lanes that
/// are read or written; no alignment is asked for.
pub(super) trait Simd: Copy {
    /// Lanes of a register.
    const LANES: usize;
    /// Rows of the register tile of a matrix product, each two registers wide; with the two registers of the other
    /// operand and one broadcast they fit the register file.
    const TILE_ROWS: usize;
    /// A register.
    type V: Copy;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// The first `n` lanes from memory (n ≤ LANES), zero in the others, which are not read.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// The first `n` lanes to memory (n ≤ LANES); nothing behind them is touched.
    unsafe fn store_first(to: *mut f32, v: Self::V, n: usize);

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once where the instruction set can.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN. Clamps keep a NaN by passing it second.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `then` where a < b, `otherwise` elsewhere, and where either is NaN.
    unsafe fn select_less(a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// To the nearest integer, ties to even; |v| < 2^22.
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2^v for integral v from -126 to 128, where it is infinity.
    unsafe fn exp2_integral(v: Self::V) -> Self::V;

    /// The sum of the lanes.
    unsafe fn reduce_add(v: Self::V) -> f32;
    /// The largest lane.
    unsafe fn reduce_max(v: Self::V) -> f32;

    /// Asks for the cache line at an address to be brought into the second-level cache; any address will do.
    unsafe fn prefetch(at: *const f32);

    /// Writes a LANES x LANES block's columns as rows: `to[c * to_stride + r] = from[r * from_stride + c]`.
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);
}
