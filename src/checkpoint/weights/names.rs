//! Maps the tensor names of checkpoints to the canonical names that the model uses.

/// The name in transformers' classes (`….LayerNorm.weight`, `classifier.bias`), or `None` for what a classifier does
/// not use: position counters and heads for other tasks.
///
/// Also accepts the prefix `module.` (saved from PyTorch's DataParallel), and `gamma` and `beta` for a layer norm's
/// weight and bias (imported from TensorFlow).
pub(super) fn canonical(name: &str) -> Option<String> {
    let name = name.strip_prefix("module.").unwrap_or(name);
    if name.ends_with("embeddings.position_ids")
        || name.ends_with("embeddings.token_type_ids")
        || name.starts_with("cls.")
    {
        return None;
    }
    Some(match name.rsplit_once('.') {
        Some((layer_norm, "gamma")) => format!("{layer_norm}.weight"),
        Some((layer_norm, "beta")) => format!("{layer_norm}.bias"),
        _ => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn brings_every_spelling_to_one_form() {
        let norm = "bert.encoder.layer.0.output.LayerNorm";
        for (stored, expected) in [
            (format!("{norm}.weight"), format!("{norm}.weight")),
            (format!("{norm}.gamma"), format!("{norm}.weight")),
            (format!("module.{norm}.beta"), format!("{norm}.bias")),
            ("pooler.dense.bias".into(), "pooler.dense.bias".into()),
            ("classifier.weight".into(), "classifier.weight".into()),
            ("gamma".into(), "gamma".into()),
        ] {
            assert_eq!(canonical(&stored).as_deref(), Some(&*expected), "{stored}");
        }
    }

    #[test]
    fn leaves_out_what_a_classifier_does_not_use() {
        for stored in ["bert.embeddings.position_ids", "embeddings.position_ids", "cls.predictions.bias"] {
            assert_eq!(canonical(stored), None, "{stored}");
        }
    }
}
