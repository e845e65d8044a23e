//! An evaluation as text for a terminal with 80 columns.

use super::against::{Comparison, Difference};
use super::view::{Matrix, Table, Value, View};
use super::worst::Mistake;
use std::fmt;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Target width of the tables in columns.
const TERMINAL_WIDTH: usize = 80;
/// Maximum width of a label's name at the start of a row, in columns.
const LABEL_WIDTH: usize = 24;
/// With more classes than this, a list of mistakes replaces the matrix.
const MATRIX_CLASSES: usize = 12;
/// Maximum length of that list.
const MISTAKES: usize = 10;
/// How many of the most confident mistakes are listed; a report has all that are kept.
const WORST: usize = 5;
/// Between two columns.
const GAP: &str = "  ";

impl fmt::Display for View {
    /// Several lines, each ended: the figures, one line per label, the confusion matrix (above 12 classes the most
    /// frequent mistakes), and the most confident mistakes. Columns are aligned by the cells that a terminal gives each character.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_figures(f, self)?;
        if let Some(table) = &self.labels_table {
            writeln!(f)?;
            write_table(f, self, table, usize::MAX)?;
        }
        match (&self.matrix, &self.mistakes) {
            (Some(matrix), _) if matrix.counts.len() <= MATRIX_CLASSES => {
                writeln!(f)?;
                write_matrix(f, self, matrix)?;
            }
            (_, Some(mistakes)) => write_mistakes(f, self, mistakes)?,
            (_, None) => {}
        }
        write_worst(f, self)?;
        self.against.as_ref().map_or(Ok(()), |against| write_against(f, self, against))
    }
}

/// A table of figures in two columns, which have these heads.
pub(super) fn side_by_side(
    f: &mut fmt::Formatter<'_>,
    heads: [&str; 2],
    rows: impl IntoIterator<Item = (String, [String; 2])>,
) -> fmt::Result {
    let cells =
        |(name, values): (String, [String; 2])| [vec![shorten(&name, LABEL_WIDTH + 2)], values.to_vec()].concat();
    let head = (String::new(), heads.map(str::to_owned));
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).map(cells).collect();
    write_columns(f, &rows, 1)
}

fn write_figures(f: &mut fmt::Formatter<'_>, view: &View) -> fmt::Result {
    let names = view.telling_figures().map(|figure| figure.name.len()).max().unwrap_or(0);
    for figure in view.telling_figures() {
        write!(f, "{:names$}{GAP}{}", figure.name, view.written(&figure.value))?;
        match figure.value.detail() {
            detail if detail.is_empty() => writeln!(f)?,
            detail => writeln!(f, " ({detail})")?,
        }
    }
    Ok(())
}

/// The first `most` rows of a table, with its averages.
fn write_table(f: &mut fmt::Formatter<'_>, view: &View, table: &Table, most: usize) -> fmt::Result {
    let cell = |value: &Value| match value {
        Value::Label(id) => shorten(&view.name(*id), LABEL_WIDTH),
        other => view.written(other),
    };
    let mut rows = vec![table.columns.iter().map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>()];
    rows.extend(table.rows.iter().take(most).map(|row| row.iter().map(cell).collect()));
    for (_, name, values) in &table.averages {
        rows.push([(*name).to_owned()].into_iter().chain(values.iter().map(cell)).collect());
    }
    let words =
        table.rows.first().map_or(1, |row| row.iter().take_while(|value| matches!(value, Value::Label(_))).count());
    write_columns(f, &rows, words)
}

fn write_mistakes(f: &mut fmt::Formatter<'_>, view: &View, mistakes: &Table) -> fmt::Result {
    if mistakes.rows.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{}:", mistakes.name.to_lowercase())?;
    write_table(f, view, mistakes, MISTAKES)
}

/// The start of a text, behind two blanks on a line of its own.
pub(super) fn line(start: &str) -> String {
    shorten(start, TERMINAL_WIDTH - GAP.len())
}

/// Two lines each: place, labels and score; then the start of the text.
fn write_worst(f: &mut fmt::Formatter<'_>, view: &View) -> fmt::Result {
    if view.worst.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nmost confident mistakes:")?;
    for Mistake { score, gold, predicted, text } in view.worst.iter().take(WORST) {
        let (gold, predicted) = (view.names(gold), view.name(*predicted));
        let [gold, predicted] = [gold, predicted].map(|name| shorten(&name, LABEL_WIDTH));
        writeln!(f, "{}: {predicted} with {score:.4}, gold {gold}", text.place())?;
        writeln!(f, "{GAP}{}", line(&text.start()))?;
    }
    Ok(())
}

fn write_against(f: &mut fmt::Formatter<'_>, view: &View, against: &Comparison) -> fmt::Result {
    writeln!(f, "\nagainst {}:", against.name())?;
    let counts = against.counts().map(|(_, name, count)| (name, count.to_string()));
    let rows: Vec<_> = counts.into_iter().chain([("McNemar's test", against.test())]).collect();
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().try_for_each(|(name, value)| writeln!(f, "{name:names$}{GAP}{value}"))?;
    if against.differences.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nfirst texts with another label:")?;
    for Difference { gold, this, other, text } in against.differences.iter().take(WORST) {
        let names = [view.name(*this), view.names(other.as_slice()), view.name(*gold)];
        let [this, other, gold] = names.map(|name| shorten(&name, LABEL_WIDTH));
        writeln!(f, "{}: {this}, there {other}, gold {gold}", text.place())?;
        writeln!(f, "{GAP}{}", line(&text.start()))?;
    }
    Ok(())
}

fn write_matrix(f: &mut fmt::Formatter<'_>, view: &View, matrix: &Matrix) -> fmt::Result {
    const CORNER: &str = "gold \\ predicted";
    let names: Vec<String> = (0..matrix.counts.len()).map(|id| view.name(id)).collect();
    let heads: Vec<String> = names.iter().map(|name| shorten(name, LABEL_WIDTH)).collect();
    let head = heads.iter().map(|name| name.width()).max().unwrap_or(0).max(CORNER.len());
    // The remaining space for each column; names are cut, numbers are not.
    let room = ((TERMINAL_WIDTH - head) / names.len().max(1)).saturating_sub(GAP.len()).max(3);
    let mut rows = vec![vec![CORNER.to_owned()]];
    rows[0].extend(names.iter().map(|name| shorten(name, room)));
    for (counts, head) in matrix.counts.iter().zip(heads) {
        rows.push([head].into_iter().chain(counts.iter().map(u64::to_string)).collect());
    }
    write_columns(f, &rows, 1)
}

/// Rows with the same number of cells, each column as wide as its widest cell; the first `words` columns are
/// left-aligned, the others right-aligned.
fn write_columns(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>], words: usize) -> fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| row[column].width()).max().unwrap_or(0)).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let gap = if column > 0 { GAP } else { "" };
            // `{:>width$}` counts characters, some of which are two cells wide in a terminal.
            let padding = " ".repeat(widths[column] - cell.width());
            match column < words {
                true => write!(f, "{gap}{cell}{padding}")?,
                false => write!(f, "{gap}{padding}{cell}")?,
            }
        }
        writeln!(f)?;
    }
    Ok(())
}

/// At most `width` columns, ending in `…` if there was more.
fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used < width
    };
    let start: String = text.chars().take_while(fits).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::config::ScoreFunction;
    use crate::evaluation::worst::TEXT;
    use crate::evaluation::{Evaluation, LeftOut};
    use crate::prediction::{Extent, Prediction};

    fn observe(evaluation: &mut Evaluation, classes: usize, gold: usize, predicted: usize, times: usize) {
        let mut logits = vec![0.0f32; classes];
        logits[predicted] = 2.0;
        let prediction = Prediction::from_logits(&logits, ScoreFunction::Softmax, Extent::Whole);
        for _ in 0..times {
            evaluation.observe(TEXT, &gold.to_string(), &prediction, &[predicted]).unwrap();
        }
    }

    fn evaluation(labels: &[&str]) -> Evaluation {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        Evaluation::of_classes(&labels, 0, ScoreFunction::Softmax)
    }

    #[test]
    fn figures_labels_and_matrix() {
        let mut evaluation = evaluation(&["World", "Sports"]);
        observe(&mut evaluation, 2, 0, 0, 70);
        observe(&mut evaluation, 2, 0, 1, 5);
        observe(&mut evaluation, 2, 1, 1, 25);
        evaluation.leave_out(LeftOut::BlankText);
        evaluation.leave_out(LeftOut::MalformedRecord);
        let expected = "\
accuracy                    95.00 % (95 % interval 88.82–97.85 %)
macro F1                    93.73 %
log loss                    0.2269
expected calibration error  6.92 %
texts evaluated             100
records left out            2 (1 blank, 1 malformed)

label          precision    recall       F1  support  predicted
World           100.00 %   93.33 %  96.55 %       75         70
Sports           83.33 %  100.00 %  90.91 %       25         30
macro average    91.67 %   96.67 %  93.73 %      100        100

gold \\ predicted  World  Sports
World                70       5
Sports                0      25

most confident mistakes:
"
        .to_owned()
            + &"a.csv:7: Sports with 0.8808, gold World\n  a text\n".repeat(5);
        assert_eq!(evaluation.view().to_string(), expected);
    }

    #[test]
    fn nothing_evaluated_prints_dashes() {
        let text = evaluation(&["a", "b"]).view().to_string();
        assert!(text.starts_with("accuracy                    –\n"), "{text}");
        assert!(text.contains("\na                      –"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn wide_and_long_names_fit_80_columns_and_stay_aligned() {
        let names =
            ["世界", "スポーツのニュース", "Ärger", "n\u{303}andu\u{301}", "a request about an order's delivery", "中"];
        let mut evaluation = evaluation(&names);
        observe(&mut evaluation, 6, 5, 0, 12_345);
        let text = evaluation.view().to_string();
        let matrix: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("gold")).take(7).collect();
        assert_eq!(matrix.len(), 7, "{text}");
        for line in &matrix {
            assert_eq!(line.width(), matrix[0].width(), "{text}");
        }
        let labels: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("label")).take(8).collect();
        for line in &labels {
            assert_eq!(line.width(), labels[0].width(), "{text}");
        }
        assert!(text.lines().all(|line| line.width() <= TERMINAL_WIDTH), "{text}");
    }

    #[test]
    fn many_classes_get_the_most_frequent_mistakes() {
        let names: Vec<String> = (0..40).map(|id| format!("intent number {id}")).collect();
        let mut evaluation = evaluation(&names.iter().map(String::as_str).collect::<Vec<_>>());
        observe(&mut evaluation, 40, 3, 3, 2);
        assert!(!evaluation.view().to_string().contains("mistakes"));
        observe(&mut evaluation, 40, 3, 17, 9);
        observe(&mut evaluation, 40, 8, 39, 11);
        let expected = "
most frequent mistakes:
gold             predicted         texts
intent number 8  intent number 39     11
intent number 3  intent number 17      9

most confident mistakes:
";
        let text = evaluation.view().to_string();
        assert!(text.contains(expected) && !text.contains('\\'), "{text}");
    }

    #[test]
    fn every_kind_is_printed() {
        let labels = ["joy".to_owned(), "anger".to_owned()];
        let mut sets = Evaluation::of_label_sets(&labels, 0);
        sets.observe(
            TEXT,
            "joy",
            &Prediction::from_logits(&[1.0, -1.0], ScoreFunction::Sigmoid, Extent::Whole),
            &[0, 1],
        )
        .unwrap();
        let expected = "\
micro F1         66.67 %
macro F1         50.00 %
subset accuracy  0.00 % (95 % interval 0.00–79.35 %)
Hamming loss     0.5000
texts evaluated  1

label          precision    recall        F1  support  predicted
joy             100.00 %  100.00 %  100.00 %        1          1
anger             0.00 %    0.00 %    0.00 %        0          1
micro average    50.00 %  100.00 %   66.67 %        1          2
macro average    50.00 %   50.00 %   50.00 %        1          2

most confident mistakes:
a.csv:7: anger with 0.2689, gold joy
  a text
";
        assert_eq!(sets.view().to_string(), expected);
        let expected = "\
Pearson correlation   –
Spearman correlation  –
mean squared error    –
texts evaluated       0
";
        assert_eq!(Evaluation::of_values().view().to_string(), expected);
    }

    #[test]
    fn a_name_is_cut_at_columns() {
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
        assert_eq!(shorten("世界世界", 6), "世界…");
        assert_eq!(shorten("世界世界", 8), "世界世界");
    }
}
