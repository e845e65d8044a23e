//! The report for machines.
//!
//! One object. Shares and scores are numbers from 0 to 1, an undefined figure is `null`:
//!
//! | field | value |
//! |---|---|
//! | `model`, `revision`, `data`, `dtype`, `command`, `date` | the origin of the figures; `null` if unknown |
//! | `agnews` | version of the program |
//! | `evaluated` | number of texts with a prediction and a gold label |
//! | `left_out` | numbers of records without: `blank_text`, `malformed_record`, `no_gold_label`, `unknown_gold_label` |
//! | `most_confident_mistakes` | at most 20, best score first: `file`, `line`, `score` and `predicted`, `predicted_id` of the wrong label, `gold` and `gold_id` (arrays), `text` (its first 200 characters); none for a number per text |
//!
//! With one class per text, if it is compared with another run: `against` with `predictions` (its file), `both_right`,
//! `only_this_right`, `only_other_right`, `both_wrong`, `labels_differ`, `mcnemar` (`p_value`, and `chi_square`, `null` for
//! the exact test) and `first_differences` (at most 20: `file`, `line`, `gold`, `this`, `other`, `text`).
//!
//! With one class per text:
//!
//! | field | value |
//! |---|---|
//! | `accuracy` | `value`, and `low` and `high` of its 95 % Wilson interval |
//! | `coverage` | share of texts that got a label: 1 without a minimum score |
//! | `selective_accuracy` | accuracy among these; `value`, `low`, `high` |
//! | `log_loss` | mean of -ln(score of the gold label), scores clipped to [2⁻²³, 1 - 2⁻²³]; `null` for a multi-label model |
//! | `expected_calibration_error` | Guo et al. 2017, over `calibration_bins` |
//! | `macro_f1` | as in `macro_average` |
//! | `classes` | in id order: `label`, `label_id`, `precision`, `recall`, `f1`, `support`, `predicted` (counts) |
//! | `macro_average` | `precision`, `recall`, `f1`: unweighted means over all classes; `support`, `predicted`: sums |
//! | `mistakes` | those that occur, most frequent first: `gold`, `gold_id`, `predicted`, `predicted_id`, `count` |
//! | `confusion_matrix` | rows by gold label, columns by predicted label, counts; `null` above 1000 classes |
//! | `calibration_bins` | lowest first: `low` (exclusive), `high` (inclusive), `count`, `mean_score`, `accuracy` |
//!
//! If a precision was wished for: `target_precision`, and `min_score`, the lowest score with which a text gets its label so
//! that the lower bound of the precision is not below it, with `min_score_coverage` and `min_score_precision` (`value`,
//! `low`, `high`) on these texts; all three `null` if there is no such score.
//!
//! With a set of labels per text: `micro_f1`, `macro_f1`, `subset_accuracy`, `hamming_loss`, `classes`, `micro_average`,
//! `macro_average`. With a number per text: `pearson`, `spearman`, `mean_squared_error`.

use super::About;
use crate::evaluation::against::{Comparison, Difference};
use crate::evaluation::view::{Table, Value as Figure, View};
use crate::evaluation::worst::Mistake;
use serde_json::{json, Map, Value};

/// The report, with a trailing line break.
pub(super) fn render(view: &View, about: &About) -> String {
    let mut report = about.as_json();
    report.extend(figures(&view.figures));
    for table in [view.labels_table.clone(), view.mistakes.clone(), view.bins_table()].iter().flatten() {
        let rows = table.rows.iter().map(|row| object(view, table.columns, row));
        report.insert(table.key.to_owned(), rows.collect());
        for (key, _, values) in &table.averages {
            report.insert((*key).to_owned(), object(view, &table.columns[1..], values));
        }
    }
    if let Some(Table { .. }) = &view.mistakes {
        report.insert("confusion_matrix".to_owned(), json!(view.matrix.as_ref().map(|matrix| &matrix.counts)));
    }
    report
        .insert("most_confident_mistakes".to_owned(), view.worst.iter().map(|mistake| worst(view, mistake)).collect());
    if let Some(comparison) = &view.against {
        report.insert("against".to_owned(), against(view, comparison));
    }
    format!("{:#}\n", Value::Object(report))
}

/// Each figure by its key.
pub(super) fn figures(figures: &[crate::evaluation::view::Figure]) -> Map<String, Value> {
    figures.iter().map(|figure| (figure.key.to_owned(), number(&figure.value))).collect()
}

fn against(view: &View, comparison: &Comparison) -> Value {
    let test = comparison.agreement.mcnemar();
    let label = |id: &usize| view.labels[*id].as_str();
    let difference = |Difference { gold, this, other, text }: &Difference| {
        json!({
            "file": text.file,
            "line": text.line,
            "gold": label(gold),
            "this": label(this),
            "other": other.as_ref().map(label),
            "text": text.text,
        })
    };
    let counts = comparison.counts().into_iter().map(|(key, _, count)| (key.to_owned(), json!(count)));
    let mut object: Map<String, Value> = counts.collect();
    object.insert("predictions".to_owned(), json!(comparison.other));
    object.insert("mcnemar".to_owned(), json!({ "p_value": test.p_value, "chi_square": test.chi_square }));
    object.insert("first_differences".to_owned(), comparison.differences.iter().map(difference).collect());
    Value::Object(object)
}

fn worst(view: &View, Mistake { score, gold, predicted, text }: &Mistake) -> Value {
    let names: Vec<&str> = gold.iter().map(|&id| view.labels[id].as_str()).collect();
    json!({
        "file": text.file,
        "line": text.line,
        "score": score,
        "predicted": view.labels[*predicted],
        "predicted_id": predicted,
        "gold": names,
        "gold_id": gold,
        "text": text.text,
    })
}

/// A row of a table. A label has its name and its id.
fn object(view: &View, columns: &[(&str, &str)], values: &[Figure]) -> Value {
    let mut object = Map::new();
    for ((key, _), value) in columns.iter().zip(values) {
        if let Figure::Label(id) = value {
            object.insert((*key).to_owned(), json!(view.labels[*id]));
            object.insert(format!("{key}_id"), json!(id));
        } else {
            object.insert((*key).to_owned(), number(value));
        }
    }
    Value::Object(object)
}

fn number(value: &Figure) -> Value {
    match value {
        Figure::Label(id) => json!(id),
        Figure::Count(count) => json!(count),
        Figure::Share(number) | Figure::Number(number) => json!(number),
        Figure::Estimate(share) => json!({
            "value": share.map(|share| share.value),
            "low": share.map(|share| share.low),
            "high": share.map(|share| share.high),
        }),
        Figure::MinScore(score) => json!(score),
        Figure::LeftOut(counts) => {
            counts.reasons().into_iter().map(|(key, _, count)| (key.to_owned(), json!(count))).collect()
        }
    }
}
