//! The page: the picture inline and all figures as tables. It loads nothing, runs nothing.

use super::markup::escape;
use super::{svg, theme, About};
use crate::evaluation::metrics::{ClassScores, Metrics};
use crate::evaluation::table::{left_out, percent};

/// More classes than this have no matrix as a table but their mistakes as a list.
const MATRIX_CLASSES: usize = 60;
const CONFUSED_PAIRS: usize = 100;
const UNDEFINED: &str = "–";

/// The whole page. Every element is closed, as XML wants it too, so that any XML tool reads it.
pub(super) fn render(metrics: &Metrics, about: &About) -> String {
    let title = escape(&svg::title(about));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{tables}\
         </main>\n</body>\n</html>\n",
        style = style(),
        tables = [
            summary(metrics, about),
            format!("<figure>\n{}\n</figure>\n", svg::element(metrics, about)),
            classes(metrics),
            confusion(metrics),
            bins(metrics),
        ]
        .concat(),
    )
}

fn style() -> String {
    let colors = |theme: &theme::Theme| {
        format!("--surface:{};--text:{};--muted:{};--line:{}", theme.surface, theme.text, theme.muted, theme.line)
    };
    format!(
        ":root{{color-scheme:light dark;{light}}}\n\
         @media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n\
         body{{margin:0;background:var(--surface);color:var(--text);font:15px/1.5 {font}}}\n\
         main{{max-width:1240px;margin:0 auto;padding:24px}}\n\
         h1{{font-size:24px;line-height:1.25;overflow-wrap:anywhere}}\nh2{{font-size:18px;margin:32px 0 8px}}\n\
         figure{{margin:24px 0;border:1px solid var(--line);border-radius:8px;overflow:hidden}}\n\
         figure svg{{display:block;max-width:100%;height:auto;margin:0 auto}}\n\
         .scroll{{overflow-x:auto}}\n\
         table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}\n\
         th,td{{padding:4px 12px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}}\n\
         th{{font-weight:600}}\nthead th{{color:var(--muted)}}\n\
         tbody th,tfoot th,thead th:first-child,.words td{{text-align:left}}\n\
         .words td{{white-space:normal;overflow-wrap:anywhere}}\n\
         summary{{cursor:pointer;font-size:18px;font-weight:600;margin:32px 0 8px}}\n\
         .note{{color:var(--muted)}}\n",
        light = colors(&theme::LIGHT),
        dark = colors(&theme::DARK),
        font = theme::FONT,
    )
}

fn summary(metrics: &Metrics, about: &About) -> String {
    let average = |of: fn(&ClassScores) -> f64| share(metrics.macro_average.as_ref().map(of));
    let interval = metrics.accuracy.map_or(UNDEFINED.to_owned(), |accuracy| {
        format!("{:.2}–{} (Wilson score interval)", accuracy.low * 100.0, percent(accuracy.high))
    });
    let mut rows = vec![
        ("Accuracy", share(metrics.accuracy.map(|accuracy| accuracy.value))),
        ("95 % interval", interval),
        ("Texts evaluated", metrics.evaluated.to_string()),
        ("Records left out", left_out(&metrics.left_out)),
        ("Macro precision", average(|s| s.precision)),
        ("Macro recall", average(|s| s.recall)),
        ("Macro F1", average(|s| s.f1)),
        ("Log loss", metrics.log_loss.map_or(UNDEFINED.to_owned(), |loss| format!("{loss:.4}"))),
        ("Expected calibration error", share(metrics.calibration.expected_error)),
    ];
    if !about.data.is_empty() {
        rows.insert(0, ("Texts", escape(&about.data)));
    }
    let rows: String =
        rows.iter().map(|(name, value)| format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>\n")).collect();
    let version = env!("CARGO_PKG_VERSION");
    format!("<table class=\"words\"><tbody>\n{rows}</tbody></table>\n<p class=\"note\">agnews {version}</p>\n")
}

fn classes(metrics: &Metrics) -> String {
    let row = |label: &str, scores: &Option<ClassScores>, support: u64, predicted: u64| {
        let cell = |of: fn(&ClassScores) -> f64| share(scores.as_ref().map(of));
        let (precision, recall, f1) = (cell(|s| s.precision), cell(|s| s.recall), cell(|s| s.f1));
        format!(
            "<tr><th scope=\"row\">{}</th><td>{precision}</td><td>{recall}</td><td>{f1}</td><td>{support}</td>\
             <td>{predicted}</td></tr>\n",
            escape(label)
        )
    };
    let rows: String =
        metrics.classes.iter().map(|class| row(&class.label, &class.scores, class.support, class.predicted)).collect();
    table(
        "<h2>Classes</h2>",
        &["class", "precision", "recall", "F1", "support", "predicted"],
        &rows,
        &row("macro average", &metrics.macro_average, metrics.evaluated, metrics.evaluated),
    )
}

fn confusion(metrics: &Metrics) -> String {
    if metrics.classes.len() > MATRIX_CLASSES {
        return confused_pairs(metrics);
    }
    let mut heads = vec!["gold \\ predicted"];
    heads.extend(metrics.classes.iter().map(|class| class.label.as_str()));
    let row = |gold: usize| {
        let cells: String = (0..metrics.classes.len())
            .map(|predicted| format!("<td>{}</td>", metrics.confusion.count(gold, predicted)))
            .collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(&metrics.classes[gold].label))
    };
    let rows: String = (0..metrics.classes.len()).map(row).collect();
    details("Confusion matrix", &table("", &heads, &rows, ""))
}

fn confused_pairs(metrics: &Metrics) -> String {
    let row = |(gold, predicted, count): (usize, usize, u64)| {
        let (gold, predicted) = (&metrics.classes[gold].label, &metrics.classes[predicted].label);
        format!("<tr><th scope=\"row\">{}</th><td>{}</td><td>{count}</td></tr>\n", escape(gold), escape(predicted))
    };
    let rows: String = metrics.confusion.most_confused(CONFUSED_PAIRS).into_iter().map(row).collect();
    details("Most frequent mistakes", &table("", &["gold", "predicted", "texts"], &rows, ""))
}

fn bins(metrics: &Metrics) -> String {
    let row = |bin: &crate::evaluation::metrics::Bin| {
        format!(
            "<tr><th scope=\"row\">{:.2}–{}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            bin.low * 100.0,
            percent(bin.high),
            bin.count,
            share(bin.mean_score),
            share(bin.accuracy)
        )
    };
    let rows: String = metrics.calibration.bins.iter().map(row).collect();
    details("Calibration by top score", &table("", &["top score", "texts", "mean score", "accuracy"], &rows, ""))
}

fn table(before: &str, heads: &[&str], rows: &str, foot: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", escape(head))).collect();
    let foot = if foot.is_empty() { String::new() } else { format!("<tfoot>\n{foot}</tfoot>") };
    format!(
        "{before}<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>{foot}</table>\
         </div>\n"
    )
}

fn details(title: &str, content: &str) -> String {
    format!("<details>\n<summary>{title}</summary>\n{content}</details>\n")
}

fn share(share: Option<f64>) -> String {
    share.map_or(UNDEFINED.to_owned(), percent)
}
