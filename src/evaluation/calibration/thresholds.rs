//! The lowest score with which a text has a label, for each label on its own: the one with the highest F1, as a text with
//! several labels has no best one. Exact: every threshold that makes a difference is tried.

use crate::decision::DEFAULT_THRESHOLD;

/// With fewer texts that have the label, or that do not, the highest F1 is chance, and the threshold stays where it is.
pub const LEAST_TEXTS: usize = 10;

/// The threshold for one label, from each text's score and whether it has the label. Of several with the same F1, the one
/// nearest to the default. Between two scores it is in the middle, so that a score a little lower still counts.
pub fn best(mut scored: Vec<(f32, bool)>) -> f32 {
    let support = scored.iter().filter(|(_, has)| *has).count();
    if support < LEAST_TEXTS || scored.len() - support < LEAST_TEXTS {
        return DEFAULT_THRESHOLD;
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    // No threshold is above all scores: without a hit F1 is 0.
    let (mut best_f1, mut best, mut hits) = (0.0, DEFAULT_THRESHOLD, 0);
    for (place, &(score, has)) in scored.iter().enumerate() {
        hits += usize::from(has);
        let next = scored.get(place + 1).map(|next| next.0);
        if next == Some(score) {
            continue;
        }
        // Equal fractions are equal numbers: a quotient is rounded the same way however it is written.
        let f1 = (2 * hits) as f64 / (place + 1 + support) as f64;
        let threshold = between(next.unwrap_or(0.0), score);
        let distance = |threshold: f32| (threshold - DEFAULT_THRESHOLD).abs();
        if f1 > best_f1 || f1 == best_f1 && distance(threshold) < distance(best) {
            (best_f1, best) = (f1, threshold);
        }
    }
    best
}

/// Above `low`, at most `high`, and as near to the default as that allows if it is between them, else in the middle.
fn between(low: f32, high: f32) -> f32 {
    match low < DEFAULT_THRESHOLD && DEFAULT_THRESHOLD <= high {
        true => DEFAULT_THRESHOLD,
        false => match f32::midpoint(low, high) {
            middle if middle > low => middle,
            // There is no number between the two.
            _ => high,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random::Random;

    fn f1(scored: &[(f32, bool)], threshold: f32) -> f64 {
        let given = scored.iter().filter(|(score, _)| *score >= threshold).count();
        let hits = scored.iter().filter(|(score, has)| *score >= threshold && *has).count();
        (2 * hits) as f64 / (given + scored.iter().filter(|(_, has)| *has).count()) as f64
    }

    #[test]
    fn no_other_threshold_has_a_higher_f1() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            // Few digits, so that many scores are equal.
            let digits = [4, 32, 1 << 20][random.below(3)];
            let scored: Vec<(f32, bool)> = (0..60)
                .map(|_| {
                    let score = random.below(digits + 1) as f32 / digits as f32;
                    (score, random.below(1000) < (900.0 * score) as usize + 50)
                })
                .collect();
            let threshold = best(scored.clone());
            let others = scored.iter().map(|(score, _)| f1(&scored, *score)).fold(0.0, f64::max);
            let support = scored.iter().filter(|(_, has)| *has).count();
            match support >= LEAST_TEXTS && scored.len() - support >= LEAST_TEXTS {
                true => assert_eq!(f1(&scored, threshold), others, "{threshold}: {scored:?}"),
                false => assert_eq!(threshold, DEFAULT_THRESHOLD),
            }
        }
    }

    #[test]
    fn the_default_stays_unless_another_is_better() {
        let of = |has: f32, lacks: f32| best([vec![(has, true); 10], vec![(lacks, false); 10]].concat());
        assert_eq!(of(0.9, 0.1), 0.5);
        assert_eq!(of(0.4, 0.2), f32::midpoint(0.2, 0.4));
        assert_eq!(of(0.5, 0.5 - f32::EPSILON / 4.0), 0.5);
        let next = 0.7f32.next_down();
        assert_eq!(of(0.7, next), 0.7, "no number between the two");
        assert_eq!(best(vec![(0.1, true); 9]), 0.5, "too few texts");
    }
}
