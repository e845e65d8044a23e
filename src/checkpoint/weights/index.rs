//! `*.index.json`: the shard of each tensor of a large checkpoint.

use super::quoted;
use crate::checkpoint::files::RepoPath;
use anyhow::{anyhow, ensure, Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// The tensors of each shard, by the shard's path relative to the index.
///
/// # Errors
/// If the index is not a JSON object with a `weight_map` from names to files, or a file is outside the index's folder.
pub(crate) fn read(json: &[u8]) -> Result<BTreeMap<RepoPath, Vec<String>>> {
    let index: Value = serde_json::from_slice(json).context("it is not valid JSON")?;
    let weight_map = index.get("weight_map").and_then(Value::as_object);
    let weight_map = weight_map.context("it has no weight_map, an object with the file of each tensor")?;
    ensure!(!weight_map.is_empty(), "its weight_map is empty");
    let mut shards: BTreeMap<RepoPath, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in weight_map {
        let shard = shard.as_str().and_then(RepoPath::parse).ok_or_else(|| {
            anyhow!(
                "its weight_map has {} for {}, not the name of a file in its folder",
                shortened(shard),
                quoted(tensor)
            )
        })?;
        shards.entry(shard).or_default().push(tensor.clone());
    }
    Ok(shards)
}

fn shortened(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_tensors_by_shard() {
        let json = br#"{"metadata":{"total_size":8},"weight_map":{"b":"in/2.bin","a":"1.bin","c":"in/2.bin"}}"#;
        let shards: Vec<_> = read(json).unwrap().into_iter().collect();
        let path = |path: &str| RepoPath::parse(path).unwrap();
        assert_eq!(shards[0], (path("1.bin"), vec!["a".to_owned()]));
        assert_eq!(shards[1], (path("in/2.bin"), vec!["b".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn refuses_other_shapes_and_files_elsewhere() {
        for (json, expected) in [
            ("", "not valid JSON"),
            ("[]", "no weight_map"),
            ("{\"weight_map\":[]}", "no weight_map"),
            ("{\"weight_map\":{}}", "is empty"),
            ("{\"weight_map\":{\"a\":1}}", "has 1 for \"a\""),
            ("{\"weight_map\":{\"a\":{\"a\":\"a\"}}}", "has an object for \"a\""),
            ("{\"weight_map\":{\"a\":\"\"}}", "not the name of a file in its folder"),
            ("{\"weight_map\":{\"a\":\"..\"}}", "not the name of a file in its folder"),
            ("{\"weight_map\":{\"a\":\".\"}}", "not the name of a file in its folder"),
            ("{\"weight_map\":{\"a\":\"../x\"}}", "not the name of a file in its folder"),
            ("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not the name of a file in its folder"),
            ("{\"weight_map\":{\"a\":\"x/\"}}", "not the name of a file in its folder"),
            ("{\"weight_map\":{\"a\":\"c:\\\\x\"}}", "not the name of a file in its folder"),
        ] {
            let message = format!("{:#}", read(json.as_bytes()).unwrap_err());
            assert!(message.contains(expected), "{json}: {message}");
        }
        let deep = "[".repeat(200_000);
        assert!(read(deep.as_bytes()).is_err());
    }
}
