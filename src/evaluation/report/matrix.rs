//! The confusion matrix: as a table on the page, where it can be read aloud, copied and scrolled, and drawn in the
//! picture.

use super::picture::{rect, text, Panel};
use super::width::{fit, text_width};
use crate::evaluation::view::{percent, Matrix, Table, View};
use crate::theme::{shade, shade_names, SHADES};
use maud::{html, Markup};

/// With more classes than this there is a list of mistakes instead.
pub(super) const MATRIX_CLASSES: usize = 60;
/// Up to this many classes, a cell also shows its share of the row.
const SHARED_CLASSES: usize = 6;
/// Column names up to this width are written horizontally.
const LEVEL_WIDTH: f64 = 76.0;
const NAME_SIZE: f64 = 12.0;
/// The meaning of the shades.
const LEGEND: &str = "shade: share of the gold label's texts, in percent";

/// Whether the column names are written horizontally.
fn is_level(view: &View, matrix: &Matrix) -> bool {
    let fits = |id| text_width(&view.name(id), NAME_SIZE) <= LEVEL_WIDTH;
    matrix.counts.len() <= SHARED_CLASSES && (0..matrix.counts.len()).all(fits)
}

/// A cell's tooltip.
fn tooltip(view: &View, matrix: &Matrix, gold: usize, predicted: usize) -> String {
    let (count, support) = (matrix.counts[gold][predicted], matrix.support(gold));
    let share = percent(matrix.share(gold, predicted));
    format!("{} predicted as {}: {count} of {support} ({share})", view.name(gold), view.name(predicted))
}

fn share_of_row(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The matrix as a table, with the F1 of each class at the end of its row.
pub(super) fn table(view: &View, matrix: &Matrix) -> Markup {
    let classes = matrix.counts.len();
    let form = if classes <= SHARED_CLASSES { "matrix roomy" } else { "matrix dense" };
    let direction = if is_level(view, matrix) { "level" } else { "upright" };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Confusion matrix" {
            table class=(form) {
                thead {
                    tr { td {} td {} th.axis colspan=(classes) scope="colgroup" { span { "predicted label" } } td {} }
                    tr class=(direction) {
                        td {}
                        td.head {}
                        @for id in 0..classes { th scope="col" title=(view.name(id)) { span { (view.name(id)) } } }
                        th.f1 scope="col" { span { "F1" } }
                    }
                }
                tbody {
                    @for gold in 0..classes {
                        tr {
                            @if gold == 0 { th.axis rowspan=(classes) scope="rowgroup" { span { "gold label" } } }
                            th.head scope="row" title=(view.name(gold)) { (view.name(gold)) }
                            @for predicted in 0..classes { (cell(view, matrix, gold, predicted)) }
                            td.f1 { (view.written(&matrix.f1[gold])) }
                        }
                    }
                }
            }
        }
        p.legend {
            @for (is_right, name) in [(true, "right"), (false, "mistakes")] {
                span {
                    (name)
                    @for (place, starts) in shade_names(is_right).iter().enumerate() {
                        b class=(format!("{}{place}", if is_right { "right" } else { "wrong" })) { (starts) }
                    }
                }
            }
            (LEGEND)
        }
    }
}

fn cell(view: &View, matrix: &Matrix, gold: usize, predicted: usize) -> Markup {
    let (count, share) = (matrix.counts[gold][predicted], matrix.share(gold, predicted));
    html! {
        td class=(shade(share, gold == predicted)) title=(tooltip(view, matrix, gold, predicted)) {
            (count)
            @if count > 0 && matrix.counts.len() <= SHARED_CLASSES { small { (share_of_row(share)) } }
        }
    }
}

/// Where the cells are in the picture, in pixels.
struct Grid {
    left: f64,
    top: f64,
    cell_width: f64,
    cell_height: f64,
    is_level: bool,
    /// Names as displayed.
    names: Vec<String>,
}

/// Space for the name of an axis.
const AXIS_NAME: f64 = 22.0;
/// Maximum width of a label's name in pixels.
const NAME_WIDTH: f64 = 180.0;
const COUNT_SIZE: f64 = 13.0;
const DENSE_COUNT_SIZE: f64 = 11.0;
const F1_WIDTH: f64 = 66.0;
const SWATCH: f64 = 40.0;

impl Grid {
    fn new(view: &View, matrix: &Matrix) -> Grid {
        let classes = matrix.counts.len();
        let names: Vec<String> = (0..classes).map(|id| fit(&view.name(id), NAME_WIDTH, NAME_SIZE)).collect();
        let longest = names.iter().map(|name| text_width(name, NAME_SIZE)).fold(0.0, f64::max);
        let largest = matrix.counts.iter().flatten().max().copied().unwrap_or(0).to_string();
        let is_level = is_level(view, matrix);
        let (cell_width, cell_height) = match classes {
            ..=SHARED_CLASSES => ((text_width(&largest, COUNT_SIZE) + 16.0).max(84.0), 54.0),
            _ => ((text_width(&largest, DENSE_COUNT_SIZE) + 8.0).max(32.0), 28.0),
        };
        let above = if is_level { 24.0 } else { longest + 14.0 };
        Grid { left: AXIS_NAME + longest + 8.0, top: AXIS_NAME + above, cell_width, cell_height, is_level, names }
    }

    fn x(&self, column: usize) -> f64 {
        self.left + column as f64 * self.cell_width
    }

    fn y(&self, row: usize) -> f64 {
        self.top + row as f64 * self.cell_height
    }
}

/// The matrix as part of the picture, with its legend and without a title.
pub(super) fn panel(view: &View, matrix: &Matrix) -> Panel {
    let classes = matrix.counts.len();
    let grid = Grid::new(view, matrix);
    let (right, bottom) = (grid.x(classes), grid.y(classes));
    let middle = (grid.top + bottom) / 2.0;
    let body = html! {
        (text("", "middle", (grid.left + right) / 2.0, 13.0, NAME_SIZE, "predicted label"))
        g transform=(format!("rotate(-90 12 {middle:.1})")) { (text("", "middle", 12.0, middle, NAME_SIZE, "gold label")) }
        (text("muted", "end", right + F1_WIDTH, grid.top - 8.0, NAME_SIZE, "F1"))
        @for id in 0..classes {
            @let row_middle = grid.y(id) + grid.cell_height / 2.0 + NAME_SIZE * 0.35;
            (text("", "end", grid.left - 8.0, row_middle, NAME_SIZE, &grid.names[id]))
            (text("", "end", right + F1_WIDTH, row_middle, NAME_SIZE, &view.written(&matrix.f1[id])))
            (column_name(&grid, id))
            @for predicted in 0..classes { (drawn_cell(view, matrix, &grid, id, predicted)) }
        }
        (legend(bottom + 20.0))
    };
    let width = (right + F1_WIDTH).max(SWATCH * SHADES as f64 + 70.0).max(text_width(LEGEND, NAME_SIZE));
    Panel { width, height: bottom + 88.0, body }
}

fn column_name(grid: &Grid, id: usize) -> Markup {
    let (center, y) = (grid.x(id) + grid.cell_width / 2.0, grid.top - 8.0);
    if grid.is_level {
        return text("", "middle", center, y, NAME_SIZE, &grid.names[id]);
    }
    let x = center + NAME_SIZE * 0.35;
    html! {
        g transform=(format!("rotate(-90 {x:.1} {y:.1})")) { (text("", "start", x, y, NAME_SIZE, &grid.names[id])) }
    }
}

fn drawn_cell(view: &View, matrix: &Matrix, grid: &Grid, gold: usize, predicted: usize) -> Markup {
    let (count, share) = (matrix.counts[gold][predicted], matrix.share(gold, predicted));
    let class = shade(share, gold == predicted);
    let (x, y) = (grid.x(predicted), grid.y(gold));
    let (center, middle) = (x + grid.cell_width / 2.0, y + grid.cell_height / 2.0);
    let has_share = count > 0 && matrix.counts.len() <= SHARED_CLASSES;
    let size = if matrix.counts.len() <= SHARED_CLASSES { COUNT_SIZE } else { DENSE_COUNT_SIZE };
    let baseline = if has_share { middle - 2.0 } else { middle + size * 0.35 };
    html! {
        g {
            title { (tooltip(view, matrix, gold, predicted)) }
            // One pixel less than the grid's step: the gap between the cells forms the lines.
            (rect(&class, x, y, grid.cell_width - 1.0, grid.cell_height - 1.0))
            (text(&class, "middle", center, baseline, size, &count.to_string()))
            @if has_share { (text(&class, "middle", center, middle + 13.0, 11.0, &share_of_row(share))) }
        }
    }
}

fn legend(top: f64) -> Markup {
    html! {
        @for (row, (is_right, ramp, name)) in [(true, "right", "right"), (false, "wrong", "mistakes")].iter().enumerate() {
            @let y = top + row as f64 * 22.0;
            (text("muted", "start", 0.0, y + 13.0, NAME_SIZE, name))
            @for (place, starts) in shade_names(*is_right).iter().enumerate() {
                @let x = 68.0 + place as f64 * SWATCH;
                @let class = format!("{ramp}{place}");
                (rect(&class, x, y, SWATCH - 1.0, 18.0))
                (text(&class, "middle", x + SWATCH / 2.0, y + 13.0, 11.0, starts))
            }
        }
        (text("muted", "start", 0.0, top + 60.0, NAME_SIZE, LEGEND))
    }
}

/// Replaces a matrix with too many cells to read: the most frequent mistakes, one per line.
pub(super) fn mistakes_panel(view: &View, mistakes: &Table) -> Panel {
    const SHOWN: usize = 20;
    const LINE_HEIGHT: f64 = 20.0;
    const COLUMNS: [f64; 3] = [0.0, NAME_WIDTH + 16.0, 2.0 * NAME_WIDTH + 90.0];
    let line = |cells: Vec<String>, class: &str, row: usize| {
        let y = (row as f64 + 1.0) * LINE_HEIGHT;
        html! {
            @for (place, (cell, x)) in cells.iter().zip(COLUMNS).enumerate() {
                @let anchor = if place < 2 { "start" } else { "end" };
                (text(class, anchor, x, y, NAME_SIZE, &fit(cell, NAME_WIDTH, NAME_SIZE)))
            }
        }
    };
    let rows = &mistakes.rows[..mistakes.rows.len().min(SHOWN)];
    let body = html! {
        (text("", "start", 0.0, NAME_SIZE, NAME_SIZE, mistakes.name))
        (line(mistakes.columns.iter().map(|(_, name)| (*name).to_owned()).collect(), "muted", 1))
        @for (place, row) in rows.iter().enumerate() {
            (line(row.iter().map(|value| view.written(value)).collect(), "", place + 2))
        }
    };
    Panel { width: COLUMNS[2], height: (rows.len() as f64 + 3.0) * LINE_HEIGHT, body }
}
