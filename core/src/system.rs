//! The agent's own counters as rows of `deepflow_system`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::rows::{DeepflowSystemRow, DeepflowSystemRows, encode};

#[derive(Deserialize)]
struct Reading {
    virtual_table_name: String,
    tags: BTreeMap<String, String>,
    metrics: BTreeMap<String, f64>,
}

/// Rows from JSON `[{"virtual_table_name", "tags": {}, "metrics": {}}]` as an Arrow IPC stream.
///
/// # Errors
/// One sentence.
pub fn system_batch(time_s: u32, agent_id: u16, json: &str) -> Result<Vec<u8>, String> {
    let readings: Vec<Reading> = serde_json::from_str(json)
        .map_err(|error| format!("The counters are not the JSON that is wanted: {error}."))?;
    let mut rows = DeepflowSystemRows::default();
    let unencodable = |error| format!("The counters cannot be encoded: {error}.");
    for reading in &readings {
        let tag_names: Vec<&str> = reading.tags.keys().map(String::as_str).collect();
        let tag_values: Vec<&str> = reading.tags.values().map(String::as_str).collect();
        let metric_names: Vec<&str> = reading.metrics.keys().map(String::as_str).collect();
        let metric_values: Vec<f64> = reading.metrics.values().copied().collect();
        rows.push(&DeepflowSystemRow {
            time: time_s,
            virtual_table_name: &reading.virtual_table_name,
            agent_id,
            tag_names: &tag_names,
            tag_values: &tag_values,
            metrics_float_names: &metric_names,
            metrics_float_values: &metric_values,
        })
        .map_err(unencodable)?;
    }
    rows.finish().and_then(|batch| encode(&batch)).map_err(unencodable)
}
