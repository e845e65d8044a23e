//! The confusion matrix as a picture.

use super::markup::{escape, fit, text_width};
use super::svg::{text, Panel};
use super::theme::{shade_of, SHADES, SHADE_STARTS};
use crate::evaluation::metrics::Metrics;

/// Up to here a cell has its count and share as text.
const WRITTEN_CLASSES: usize = 12;
/// Up to here there is a matrix; above, a list of the most confused pairs.
const SHADED_CLASSES: usize = 60;
const CONFUSED_PAIRS: usize = 20;
/// The widest a label's name gets, in pixels.
const LABEL_WIDTH: f64 = 170.0;
const LABEL_SIZE: f64 = 12.0;
const COUNT_SIZE: f64 = 14.0;
const SHARE_SIZE: f64 = 11.0;
const TITLE: &str = "Confusion matrix";
const SUBTITLE: &str = "rows: gold label; columns: predicted label";
/// Below title and subtitle.
const BODY_TOP: f64 = 48.0;
const SWATCH_WIDTH: f64 = 36.0;
/// cos 45° = sin 45°: the slope of names that do not fit above their columns.
const SLOPE: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// Where the cells are, in pixels.
struct Grid {
    left: f64,
    top: f64,
    cell_width: f64,
    cell_height: f64,
    column_names: ColumnNames,
    /// Names as they are shown, in rows and columns.
    names: Vec<String>,
    label_size: f64,
}

/// How the columns' names stand above them.
#[derive(Clone, Copy, PartialEq)]
enum ColumnNames {
    /// As the rows' names: each fits over its column.
    Level,
    /// At 45°, easier to read than upright.
    Leaning,
    /// Reading upwards: columns so narrow that leaning names would run into each other.
    Upright,
}

/// The panel.
pub(super) fn panel(metrics: &Metrics) -> Panel {
    if metrics.classes.len() > SHADED_CLASSES {
        return confused_pairs(metrics);
    }
    let grid = Grid::new(metrics);
    let classes = grid.names.len() as f64;
    let bottom = grid.top + classes * grid.cell_height;
    let body = [heading(SUBTITLE), names(metrics, &grid), cells(metrics, &grid), legend(bottom + 20.0)].concat();
    let width = grid.width().max(text_width(SUBTITLE, LABEL_SIZE)).max(SHADES as f64 * SWATCH_WIDTH);
    Panel { width, height: bottom + 66.0, body }
}

impl Grid {
    fn new(metrics: &Metrics) -> Grid {
        let classes = metrics.classes.len();
        let written = classes <= WRITTEN_CLASSES;
        let label_size = if written { LABEL_SIZE } else { 10.0 };
        let names: Vec<String> =
            metrics.classes.iter().map(|class| fit(&class.label, LABEL_WIDTH, label_size)).collect();
        let longest = names.iter().map(|name| text_width(name, label_size)).fold(0.0, f64::max);
        let largest = metrics.confusion.cells().map(|(_, _, count)| count.to_string()).max_by_key(String::len);
        let count_width = text_width(&largest.unwrap_or_default(), COUNT_SIZE) + 20.0;
        let (cell_width, cell_height) = match classes {
            0..=6 => (count_width.max(86.0), 58.0),
            7..=WRITTEN_CLASSES => (count_width.max(58.0), 46.0),
            _ => (15.0, 15.0),
        };
        let column_names = match longest <= cell_width - 8.0 {
            true => ColumnNames::Level,
            false if written => ColumnNames::Leaning,
            false => ColumnNames::Upright,
        };
        let above = match column_names {
            ColumnNames::Level => 20.0,
            ColumnNames::Leaning => longest * SLOPE + 14.0,
            ColumnNames::Upright => longest + 14.0,
        };
        Grid { left: longest + 10.0, top: BODY_TOP + above, cell_width, cell_height, column_names, names, label_size }
    }

    fn x(&self, column: usize) -> f64 {
        self.left + column as f64 * self.cell_width
    }

    fn y(&self, row: usize) -> f64 {
        self.top + row as f64 * self.cell_height
    }

    /// With the names that lean out to the right of their column.
    fn width(&self) -> f64 {
        let cells = self.x(self.names.len());
        let leaning = |(column, name): (usize, &String)| {
            self.x(column) + self.cell_width / 2.0 + (text_width(name, self.label_size) + self.label_size) * SLOPE
        };
        match self.column_names {
            ColumnNames::Leaning => self.names.iter().enumerate().map(leaning).fold(cells, f64::max),
            ColumnNames::Level | ColumnNames::Upright => cells,
        }
    }
}

fn heading(subtitle: &str) -> String {
    let title = text(0.0, 14.0, 16.0, "font-weight=\"600\"", TITLE);
    title + &text(0.0, 34.0, LABEL_SIZE, "class=\"muted\"", subtitle)
}

fn names(metrics: &Metrics, grid: &Grid) -> String {
    let mut body = String::new();
    for (id, name) in grid.names.iter().enumerate() {
        let size = grid.label_size;
        let middle = grid.y(id) + grid.cell_height / 2.0 + size * 0.35;
        body.push_str(&named(&metrics.classes[id].label, grid.left - 10.0, middle, size, "text-anchor=\"end\"", name));
        let (center, y) = (grid.x(id) + grid.cell_width / 2.0, grid.top - 8.0);
        // Turned names turn about their start.
        let (x, attributes) = match grid.column_names {
            ColumnNames::Level => (center, "text-anchor=\"middle\"".to_owned()),
            ColumnNames::Leaning => (center, format!("transform=\"rotate(-45 {center:.1} {y:.1})\"")),
            ColumnNames::Upright => {
                let x = center + size * 0.35;
                (x, format!("transform=\"rotate(-90 {x:.1} {y:.1})\""))
            }
        };
        body.push_str(&named(&metrics.classes[id].label, x, y, size, &attributes, name));
    }
    body
}

/// A shown name, with the full one to be seen under the pointer.
fn named(label: &str, x: f64, y: f64, size: f64, attributes: &str, shown: &str) -> String {
    format!("<g><title>{}</title>{}</g>\n", escape(label), text(x, y, size, attributes, shown).trim_end())
}

fn cells(metrics: &Metrics, grid: &Grid) -> String {
    let classes = metrics.classes.len();
    let mut body = String::new();
    for gold in 0..classes {
        for predicted in 0..classes {
            body.push_str(&cell(metrics, grid, gold, predicted));
        }
    }
    body
}

fn cell(metrics: &Metrics, grid: &Grid, gold: usize, predicted: usize) -> String {
    let count = metrics.confusion.count(gold, predicted);
    let support = metrics.classes[gold].support;
    let share = if support > 0 { count as f64 / support as f64 } else { 0.0 };
    let shade = shade_of(share);
    let (x, y) = (grid.x(predicted), grid.y(gold));
    // One pixel less than the grid's step: the surface between cells draws the lines.
    let mut body = format!(
        "<g><title>{} taken for {}: {count} of {support}</title><rect class=\"shade{shade}\" x=\"{x:.1}\" y=\"{y:.1}\" \
         width=\"{:.1}\" height=\"{:.1}\"/>",
        escape(&metrics.classes[gold].label),
        escape(&metrics.classes[predicted].label),
        grid.cell_width - 1.0,
        grid.cell_height - 1.0
    );
    if metrics.classes.len() <= WRITTEN_CLASSES {
        let attributes = format!("text-anchor=\"middle\" class=\"on{shade}\"");
        let (center, middle) = (x + grid.cell_width / 2.0 - 0.5, y + grid.cell_height / 2.0);
        if count == 0 {
            body.push_str(text(center, middle + COUNT_SIZE * 0.35, COUNT_SIZE, &attributes, "0").trim_end());
        } else {
            body.push_str(text(center, middle - 1.0, COUNT_SIZE, &attributes, &count.to_string()).trim_end());
            let share = format!("{:.1} %", share * 100.0);
            body.push_str(text(center, middle + SHARE_SIZE + 2.0, SHARE_SIZE, &attributes, &share).trim_end());
        }
    }
    body + "</g>\n"
}

/// What the shades stand for.
fn legend(top: f64) -> String {
    let mut body = String::new();
    for place in 0..SHADES {
        let x = place as f64 * SWATCH_WIDTH;
        body.push_str(&format!(
            "<rect class=\"shade{place}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"12\"/>\n",
            SWATCH_WIDTH - 1.0
        ));
        let starts = match place {
            0 => "0".to_owned(),
            1 => "> 0".to_owned(),
            _ => format!("≥ {:.0}", SHADE_STARTS[place - 1] * 100.0),
        };
        let center = x + SWATCH_WIDTH / 2.0;
        body.push_str(&text(center, top + 26.0, 11.0, "text-anchor=\"middle\" class=\"muted\"", &starts));
    }
    body + &text(0.0, top + 44.0, LABEL_SIZE, "class=\"muted\"", "shade: share of the row, in per cent")
}

/// Instead of a matrix of more cells than anyone can see.
fn confused_pairs(metrics: &Metrics) -> Panel {
    const LINE_HEIGHT: f64 = 20.0;
    const COUNT_WIDTH: f64 = 80.0;
    let subtitle = format!("{} classes: the most frequent mistakes (texts, gold → predicted)", metrics.classes.len());
    let mut body = heading(&subtitle);
    let pairs = metrics.confusion.most_confused(CONFUSED_PAIRS);
    for (place, (gold, predicted, count)) in pairs.iter().enumerate() {
        let y = BODY_TOP + (place as f64 + 1.0) * LINE_HEIGHT;
        let name = |id: usize| fit(&metrics.classes[id].label, LABEL_WIDTH, LABEL_SIZE);
        let pair = format!("{} → {}", name(*gold), name(*predicted));
        body.push_str(&text(COUNT_WIDTH - 14.0, y, LABEL_SIZE, "text-anchor=\"end\"", &count.to_string()));
        body.push_str(&text(COUNT_WIDTH, y, LABEL_SIZE, "", &pair));
    }
    if pairs.is_empty() {
        body.push_str(&text(0.0, BODY_TOP + LINE_HEIGHT, LABEL_SIZE, "", "none"));
    }
    let width = (COUNT_WIDTH + 2.0 * LABEL_WIDTH + 30.0).max(text_width(&subtitle, LABEL_SIZE));
    Panel { width, height: BODY_TOP + (pairs.len().max(1) as f64 + 1.0) * LINE_HEIGHT, body }
}
