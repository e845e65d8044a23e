//! The attention kernel against the formula, in all its variants.

use super::super::reference::{assert_close, attention as truth, levels, Random};
use super::*;

fn offsets(lengths: &[usize]) -> Vec<usize> {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Operands in which every token has a query.
fn of<'a>(query: &'a [f32], key: &'a [f32], value: &'a [f32], heads: usize, offsets: &'a [usize]) -> Attention<'a> {
    let head_dim = query.len() / heads / offsets.last().unwrap().max(&1);
    Attention {
        query,
        key,
        value,
        heads,
        head_dim,
        query_offsets: offsets,
        offsets,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window: None,
        positions: Positions::None,
    }
}

/// Queries of size `scale` spread the scores as far; values are below 1, and so are their weighted sums.
fn check(lengths: &[usize], heads: usize, head_dim: usize, scale: f32, tolerance: f64) {
    check_variant(lengths, heads, head_dim, scale, tolerance, |operands| operands)
}

/// `vary` changes the operands of plain attention.
fn check_variant(
    lengths: &[usize],
    heads: usize,
    head_dim: usize,
    scale: f32,
    tolerance: f64,
    vary: impl for<'b> Fn(Attention<'b>) -> Attention<'b>,
) {
    let mut random = Random::new((lengths.len() * heads * head_dim) as u64);
    let offsets = offsets(lengths);
    let hidden = heads * head_dim;
    let floats = offsets[lengths.len()] * hidden;
    let (query, key) = (random.floats(floats, scale), random.floats(floats, 1.0));
    let value = random.floats(floats, 1.0);
    let operands = vary(Attention { head_dim, ..of(&query, &key, &value, heads, &offsets) });
    let truth = truth(operands);
    let size = vec![1.0; truth.len()];
    // Only the first token of each sequence has a query.
    let firsts = |rows: &[f32]| {
        offsets[..lengths.len()].iter().flat_map(|&i| rows[i * hidden..][..hidden].to_vec()).collect::<Vec<f32>>()
    };
    let (first_query, first_offsets) = (firsts(&query), (0..=lengths.len()).collect::<Vec<usize>>());
    let of_firsts = Attention { query: &first_query, query_offsets: &first_offsets, ..operands };
    for level in levels() {
        let what = format!("{level}, lengths {lengths:?}, {heads} heads of {head_dim}");
        let context = attention(level, Parallelism::Single, operands);
        assert_close(&context, &truth, &size, tolerance, &what);
        assert_eq!(attention(level, Parallelism::Pool, operands), context, "{what}, in parallel");
        assert_eq!(attention(level, Parallelism::Single, of_firsts), firsts(&context), "{what}, first tokens");
    }
}

#[test]
fn a_window_hides_what_is_further_away() {
    for window in [0, 1, 5, 64, 1000] {
        for lengths in [&[1, 2, 40, 7][..], &[500, 193]] {
            check_variant(lengths, 2, 24, 2.0, 2e-6, |operands| Attention { window: Some(window), ..operands });
        }
    }
}

#[test]
fn rotary_positions_turn_queries_and_keys() {
    for (lengths, head_dim) in [(&[1, 5, 40][..], 64), (&[210], 6), (&[33, 2], 34)] {
        let angles: Vec<f32> = (0..210 * head_dim / 2).map(|i| i as f32 * 0.37).collect();
        let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
        let positions = Positions::Rotary { cos: &cos, sin: &sin };
        for window in [None, Some(3)] {
            check_tables(lengths, 2, head_dim, positions, window);
        }
    }
}

#[test]
fn biases_are_added_by_distance() {
    for (lengths, reach) in [(&[1, 5, 40][..], 40), (&[210, 3], 256)] {
        let bias = Random::new(3).floats(3 * (2 * reach - 1), 4.0);
        for window in [None, Some(20)] {
            check_tables(lengths, 3, 16, Positions::Bias(&bias), window);
        }
    }
}

#[test]
fn disentangled_positions_add_two_products() {
    let (heads, mut random) = (3, Random::new(5));
    for (lengths, reach, head_dim) in
        [(&[1, 2, 3, 17][..], 17, 8), (&[40, 64, 13], 64, 20), (&[210, 100], 256, 64), (&[16, 32, 8], 33, 200)]
    {
        let tables = [(); 2].map(|()| random.floats((2 * reach - 1) * heads * head_dim, 1.0));
        let [key, query] = [0, 1].map(|i| Some(&tables[i][..]));
        for (key, query) in [(key, query), (key, None), (None, query), (None, None)] {
            check_tables(lengths, heads, head_dim, Positions::Disentangled { key, query }, None);
        }
    }
}

/// Attention whose tables outlive the operands.
fn check_tables(lengths: &[usize], heads: usize, head_dim: usize, positions: Positions, window: Option<usize>) {
    let (offsets, mut random) = (offsets(lengths), Random::new(head_dim as u64));
    let floats = offsets[lengths.len()] * heads * head_dim;
    let [query, key, value] = [(); 3].map(|()| random.floats(floats, 1.0));
    let operands = Attention { positions, window, ..of(&query, &key, &value, heads, &offsets) };
    let truth = truth(operands);
    let firsts: Vec<usize> = (0..=lengths.len()).collect();
    let hidden = heads * head_dim;
    for level in levels() {
        let what = format!("{level}, lengths {lengths:?}, {heads} heads of {head_dim}, window {window:?}");
        let context = attention(level, Parallelism::Single, operands);
        assert_close(&context, &truth, &vec![1.0; truth.len()], 4e-6, &what);
        assert_eq!(attention(level, Parallelism::Pool, operands), context, "{what}, in parallel");
        let first = |rows: &[f32]| {
            offsets[..lengths.len()].iter().flat_map(|&i| rows[i * hidden..][..hidden].to_vec()).collect::<Vec<f32>>()
        };
        let query = first(&query);
        let of_firsts = Attention { query: &query, query_offsets: &firsts, ..operands };
        assert_eq!(attention(level, Parallelism::Single, of_firsts), first(&context), "{what}, first tokens");
        // The last sequence alone gives the same bits.
        let last = offsets[lengths.len() - 1] * hidden..;
        let alone = [0, lengths[lengths.len() - 1]];
        let alone = Attention {
            query: &operands.query[last.clone()],
            key: &key[last.clone()],
            value: &value[last.clone()],
            query_offsets: &alone,
            offsets: &alone,
            ..operands
        };
        assert_eq!(attention(level, Parallelism::Single, alone), context[last], "{what}, alone");
    }
}

#[test]
fn sequences_of_mixed_lengths_attend_to_themselves() {
    check(&[2, 512, 3, 17, 64, 1, 193, 192], 2, 64, 2.0, 2e-6);
    check(&[5, 31, 32, 33, 100], 12, 32, 2.0, 2e-6);
}

#[test]
fn heads_of_any_width_are_served() {
    for head_dim in [1, 7, 16, 24, 33, 48, 80, 96, 128, 200] {
        check(&[1, 9, 40, 20], 3, head_dim, 1.0, 2e-6);
    }
}

#[test]
fn scores_far_apart_leave_the_largest() {
    // Scores up to 1e4: rounding one changes a weight by 1e-3.
    check(&[20, 50], 2, 64, 2_000.0, 5e-3);
}

#[test]
fn a_sequence_gives_the_same_bits_in_any_batch() {
    let mut random = Random::new(7);
    let (heads, head_dim) = (3, 20);
    let hidden = heads * head_dim;
    let offsets = offsets(&[40, 7, 61]);
    let (query, key) = (random.floats(108 * hidden, 1.0), random.floats(108 * hidden, 1.0));
    let operands = of(&query, &key, &key, heads, &offsets);
    for level in levels() {
        let batch = attention(level, Parallelism::Single, operands);
        for pair in offsets.windows(2) {
            let part = pair[0] * hidden..pair[1] * hidden;
            let (query, key) = (&query[part.clone()], &key[part.clone()]);
            let alone = [0, pair[1] - pair[0]];
            let operands = of(query, key, key, heads, &alone);
            assert_eq!(attention(level, Parallelism::Single, operands), batch[part], "{level}");
        }
    }
}

#[test]
fn a_key_scored_minus_infinity_has_no_weight() {
    let (query, mut key) = ([1.0; 6], [0.25, 0.5, 0.0, 0.0, 0.25, 0.5]);
    key[2] = f32::NEG_INFINITY;
    let value = [1.0, 2.0, 1e30, 1e30, 3.0, 4.0];
    let operands = of(&query, &key, &value, 1, &[0, 3]);
    for level in levels() {
        for row in attention(level, Parallelism::Single, operands).chunks(2) {
            assert_eq!(row, [2.0, 3.0], "{level}");
        }
    }
}

#[test]
fn nan_and_infinity_stay_in_their_sequence() {
    let (query, mut key) = ([1.0; 8], [0.5; 8]);
    for bad in [f32::NAN, f32::INFINITY] {
        key[1] = bad;
        let operands = of(&query, &key, &query, 1, &[0, 2, 4]);
        for level in levels() {
            let context = attention(level, Parallelism::Single, operands);
            assert!(context[..4].iter().all(|x| x.is_nan()), "{level}: {context:?}");
            assert_eq!(context[4..], [1.0; 4], "{level}");
        }
    }
}

#[test]
fn empty_batches_and_sequences_give_nothing() {
    for level in levels() {
        let operands = Attention { head_dim: 4, ..of(&[], &[], &[], 2, &[0, 0]) };
        assert!(attention(level, Parallelism::Single, operands).is_empty());
        let no_batch = Attention { query_offsets: &[], offsets: &[], ..operands };
        assert!(attention(level, Parallelism::Pool, no_batch).is_empty());
        let to_nothing = Attention { query: &[1.0; 8], query_offsets: &[0, 1], ..operands };
        assert_eq!(attention(level, Parallelism::Pool, to_nothing), [0.0; 8], "{level}");
    }
}
