use super::*;
use crate::checkpoint::config::ScoreFunction;
use crate::evaluation::worst::{EvaluatedText, TEXT};
use crate::evaluation::{Evaluation, LeftOut};
use crate::prediction::{Extent, Prediction};
use serde_json::{json, Value};

fn about() -> About {
    About {
        model: "a <b> & \"c\" \u{1b}".to_owned(),
        revision: "main".to_owned(),
        data: "test's.csv".to_owned(),
        dtype: "f32".to_owned(),
        command: "agnews -f \"test's.csv\" <b>".to_owned(),
        date: "2026-01-31T12:00:00Z".to_owned(),
    }
}

/// `texts` texts over `labels`; every third is predicted as the next class.
fn evaluation(labels: &[&str], texts: usize) -> Evaluation {
    let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let mut evaluation = Evaluation::of_classes(&labels, 0, ScoreFunction::Softmax);
    for text in 0..texts {
        let gold = text % labels.len();
        let predicted = if text % 3 == 0 { (gold + 1) % labels.len() } else { gold };
        let mut logits = vec![0.0; labels.len()];
        logits[predicted] = (text % 7) as f32 + 0.5;
        let prediction = Prediction::from_logits(&logits, ScoreFunction::Softmax, Extent::Whole);
        evaluation.observe(TEXT, &gold.to_string(), &prediction, &[predicted]).unwrap();
    }
    evaluation
}

/// Strict XML; closes the two elements that HTML does not close first.
fn closed(markup: &str) -> String {
    markup.replace("charset=\"utf-8\">", "charset=\"utf-8\"/>").replace("initial-scale=1\">", "initial-scale=1\"/>")
}

fn document(markup: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(markup, options).unwrap_or_else(|error| panic!("{error}\n{markup}"))
}

const HOSTILE: [&str; 4] = ["</text></style><script>", "a & b", "\"quoted\"'", "\0\u{ffff}\n"];

#[test]
fn svg_and_html_are_well_formed_for_every_number_of_classes() {
    let many: Vec<String> = (0..80).map(|id| format!("<class {id}> & its long, long, long description")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for classes in [1, 2, 4, 6, 7, 12, 13, 60, 61, 80] {
        for texts in [0, 1, 500] {
            let view = evaluation(&many[..classes], texts).view();
            for format in [Format::Svg, Format::Html] {
                let markup = closed(&format.render(&view, &about()));
                document(&markup);
                assert!(!markup.contains("NaN") && !markup.contains(">inf"), "{classes} classes, {texts} texts");
            }
        }
    }
}

#[test]
fn too_many_classes_for_a_matrix_have_their_mistakes_listed() {
    let many: Vec<String> = (0..61).map(|id| format!("intent {id}")).collect();
    let view = evaluation(&many.iter().map(String::as_str).collect::<Vec<_>>(), 500).view();
    for format in [Format::Svg, Format::Html] {
        let markup = closed(&format.render(&view, &about()));
        let document = document(&markup);
        let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
        for expected in ["Most frequent mistakes", "intent 0", "intent 1", "3"] {
            assert!(texts.contains(&expected), "{expected} in {texts:?}");
        }
        assert!(!texts.contains(&"predicted label"));
    }
}

#[test]
fn every_kind_has_every_report() {
    let labels = ["joy".to_owned(), "anger".to_owned()];
    for evaluation in [Evaluation::of_label_sets(&labels, 0), Evaluation::of_values()] {
        let view = evaluation.view();
        for format in [Format::Svg, Format::Html] {
            let markup = closed(&format.render(&view, &about()));
            let document = document(&markup);
            assert!(document.descendants().all(|node| node.text() != Some("predicted label")));
        }
        let report: Value = serde_json::from_str(&Format::Json.render(&view, &about())).unwrap();
        assert_eq!((&report["evaluated"], report.get("confusion_matrix")), (&json!(0), None));
    }
    let mut sets = Evaluation::of_label_sets(&labels, 0);
    sets.observe(
        TEXT,
        "joy|anger",
        &Prediction::from_logits(&[1.0, -1.0], ScoreFunction::Sigmoid, Extent::Whole),
        &[0],
    )
    .unwrap();
    let report: Value = serde_json::from_str(&Format::Json.render(&sets.view(), &about())).unwrap();
    assert_eq!((&report["micro_average"]["recall"], &report["classes"][1]["support"]), (&json!(0.5), &json!(1)));
}

#[test]
fn names_of_labels_and_models_stay_text() {
    let view = evaluation(&HOSTILE, 50).view();
    for format in [Format::Svg, Format::Html] {
        let markup = closed(&format.render(&view, &about()));
        let document = document(&markup);
        assert!(document.descendants().all(|node| node.tag_name().name() != "script"), "{markup}");
        assert!(document.descendants().any(|node| node.text() == Some("a & b")), "{markup}");
    }
    let report: Value = serde_json::from_str(&Format::Json.render(&view, &about())).unwrap();
    assert_eq!(
        report["classes"][3]["label"], HOSTILE[3],
        "JSON escapes characters that a terminal and XML do not accept"
    );
}

#[test]
fn reports_load_nothing_and_name_their_origin() {
    let view = evaluation(&["World", "Sports"], 90).view();
    for format in [Format::Svg, Format::Html] {
        let markup = closed(&format.render(&view, &about()));
        assert!(markup.contains("prefers-color-scheme:dark"));
        let elsewhere = markup.replace("http://www.w3.org/2000/svg", "");
        for load in ["http", "url(", "href", "@import", "src=", "<script"] {
            assert!(!elsewhere.contains(load), "{load}");
        }
        let document = document(&markup);
        let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
        for fact in ["main", "f32", "2026-01-31T12:00:00Z", "agnews -f", env!("CARGO_PKG_VERSION")] {
            assert!(texts.iter().any(|text| text.contains(fact)), "{fact} in {texts:?}");
        }
    }
}

/// 45 texts per class, 15 of them predicted as the other one.
#[test]
fn the_matrix_has_counts_shares_axes_and_f1() {
    let view = evaluation(&["World", "Sports"], 90).view();
    for format in [Format::Svg, Format::Html] {
        let markup = closed(&format.render(&view, &about()));
        let document = document(&markup);
        let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
        for expected in ["30", "66.7 %", "15", "33.3 %", "gold label", "predicted label", "F1", "66.67 %"] {
            assert!(texts.contains(&expected), "{expected} in {texts:?}");
        }
        let with_class =
            |class: &str| document.descendants().filter(|node| node.attribute("class") == Some(class)).count();
        assert!(with_class("right2") > 0 && with_class("wrong4") > 0, "mistakes have their own hue");
    }
}

#[test]
fn the_page_has_one_heading_and_says_each_headline_once() {
    let markup = closed(&Format::Html.render(&evaluation(&["World", "Sports"], 90).view(), &about()));
    let document = document(&markup);
    let named = |name: &str| document.descendants().filter(|node| node.tag_name().name() == name).count();
    assert_eq!((named("h1"), named("svg")), (1, 1));
    assert_eq!(markup.matches("95 % interval").count(), 1);
    let svg = document.descendants().find(|node| node.tag_name().name() == "svg").unwrap();
    assert!(svg.attribute("role") == Some("img") && svg.attribute("aria-label").unwrap().contains("Reliability"));
}

#[test]
fn nothing_leaves_the_picture() {
    let long = ["a rather long name of a class, as intents have them"; 12];
    let twenty = ["alt.atheism"; 20];
    for labels in [&["a", "b"][..], &["World", "Sports", "Business", "Sci/Tech"], &long, &twenty] {
        let markup = Format::Svg.render(&evaluation(labels, 200).view(), &about());
        let document = document(&markup);
        let root = document.root_element();
        let size = |name: &str| root.attribute(name).unwrap().parse::<f64>().unwrap();
        let panels: Vec<_> =
            root.children().filter_map(|node| node.attribute("transform").map(|transform| (node, transform))).collect();
        assert_eq!(panels.len(), 2);
        for (panel, transform) in panels {
            let corner = transform.strip_prefix("translate(").unwrap().trim_end_matches(')').split_once(' ').unwrap();
            let (left, top): (f64, f64) = (corner.0.parse().unwrap(), corner.1.parse().unwrap());
            for rect in panel.descendants().filter(|node| node.tag_name().name() == "rect") {
                let number = |name: &str| rect.attribute(name).unwrap().parse::<f64>().unwrap();
                assert!(number("x") >= 0.0 && left + number("x") + number("width") <= size("width"), "{rect:?}");
                assert!(number("y") >= 0.0 && top + number("y") + number("height") <= size("height"), "{rect:?}");
            }
        }
    }
}

#[test]
fn json_has_every_figure_and_null_for_undefined_ones() {
    let mut evaluation = evaluation(&["World", "Sports"], 90);
    evaluation.leave_out(LeftOut::BlankText);
    let report: Value = serde_json::from_str(&Format::Json.render(&evaluation.view(), &about())).unwrap();
    assert_eq!(report["model"], about().model);
    assert_eq!(report["command"], about().command);
    assert_eq!(report["evaluated"], 90);
    assert_eq!(report["left_out"]["blank_text"], 1);
    assert_eq!(report["confusion_matrix"], json!([[30, 15], [15, 30]]));
    let mistake = json!({ "gold": "World", "gold_id": 0, "predicted": "Sports", "predicted_id": 1, "count": 15 });
    assert_eq!(report["mistakes"][0], mistake);
    assert_eq!((&report["classes"][1]["label"], &report["classes"][1]["label_id"]), (&json!("Sports"), &json!(1)));
    assert_eq!(report["classes"][1]["support"], 45);
    assert_eq!(report["coverage"], 1.0);
    assert_eq!(report["selective_accuracy"], report["accuracy"]);
    assert!((report["accuracy"]["value"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-15);
    let bins = report["calibration_bins"].as_array().unwrap();
    assert_eq!(bins.iter().map(|bin| bin["count"].as_u64().unwrap()).sum::<u64>(), 90);

    let empty = Evaluation::of_classes(&["a".to_owned()], 0, ScoreFunction::Softmax).view();
    let report: Value = serde_json::from_str(&Format::Json.render(&empty, &About::default())).unwrap();
    for undefined in
        ["/accuracy/value", "/macro_average/f1", "/classes/0/f1", "/log_loss", "/calibration_bins/3/accuracy", "/model"]
    {
        assert_eq!(report.pointer(undefined), Some(&Value::Null), "{undefined}");
    }
}

#[test]
fn the_format_follows_from_the_name() {
    for (name, format) in [("a.json", Format::Json), ("b/c.SVG", Format::Svg), ("d.html", Format::Html)] {
        assert_eq!(Format::of(Path::new(name)).unwrap(), format);
    }
    for name in ["report.pdf", "report", ".svg"] {
        let message = Format::of(Path::new(name)).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(".json, .svg or .html"), "{message}");
    }
}

#[test]
fn the_most_confident_mistakes_are_listed_with_their_texts_escaped() {
    let labels = HOSTILE.map(str::to_owned);
    let mut evaluation = Evaluation::of_classes(&labels, 0, ScoreFunction::Softmax);
    for (line, logit) in [(3, 1.0), (9, 4.0)] {
        let prediction = Prediction::from_logits(&[0.0, logit, 0.0, 0.0], ScoreFunction::Softmax, Extent::Whole);
        let text = "<script>alert(1)</script> & \u{1b}[2J\n\0 \"quoted\"";
        evaluation.observe(EvaluatedText { file: &"<a>.csv", line, text }, "2", &prediction, &[1]).unwrap();
    }
    let markup = closed(&Format::Html.render(&evaluation.view(), &about()));
    let document = document(&markup);
    assert!(document.descendants().all(|node| node.tag_name().name() != "script"), "{markup}");
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for expected in [
        "Most confident mistakes",
        "<a>.csv:9",
        "0.9479",
        "<script>alert(1)</script> & \u{fffd}[2J \u{fffd} \"quoted\"",
    ] {
        assert!(texts.contains(&expected), "{expected} in {texts:?}");
    }
    let report: Value = serde_json::from_str(&Format::Json.render(&evaluation.view(), &about())).unwrap();
    let worst = &report["most_confident_mistakes"];
    assert_eq!((worst.as_array().unwrap().len(), &worst[0]["line"], &worst[1]["line"]), (2, &json!(9), &json!(3)));
    assert_eq!((&worst[0]["predicted"], &worst[0]["gold"]), (&json!("a & b"), &json!(["\"quoted\"'"])));
    assert_eq!(
        (&worst[0]["predicted_id"], &worst[0]["gold_id"], &worst[0]["file"]),
        (&json!(1), &json!([2]), &json!("<a>.csv"))
    );
    assert!(evaluation.view().to_string().contains("<a>.csv:9: a & b with 0.9479"));
}
