//! The whole Python surface of the core, and nothing else.

pub mod causality;
pub mod connection;
pub mod engine;
pub mod event;
pub mod meter;
pub mod packet;
pub mod peers;
pub mod protocols;
pub mod replay;
pub mod rows;
pub mod session;
pub mod stream;
pub mod system;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::json;

use engine::Batch;

type PyBatch = (String, usize, Py<PyBytes>);

fn to_python(py: Python<'_>, batches: Vec<Batch>) -> Vec<PyBatch> {
    batches
        .into_iter()
        .map(|(table, rows, data)| (table.to_string(), rows, PyBytes::new(py, &data).unbind()))
        .collect()
}

#[pyfunction]
#[pyo3(name = "replay")]
fn replay_file(py: Python<'_>, path: &str, config: &str) -> PyResult<Vec<PyBatch>> {
    let batches = py
        .detach(|| replay::replay(path, config))
        .map_err(PyValueError::new_err)?;
    Ok(to_python(py, batches))
}

#[pyfunction]
#[pyo3(name = "protocols")]
fn registry() -> String {
    let all: Vec<_> = protocols::REGISTRY
        .iter()
        .map(|p| {
            json!({"id": p.id, "name": p.name, "pairing": format!("{:?}", p.pairing), "transports": p.transports,
                   "timeout_s": p.timeout_s, "doc": p.doc})
        })
        .collect();
    serde_json::Value::from(all).to_string()
}

#[pyfunction]
fn tables() -> Vec<&'static str> {
    engine::TABLES.to_vec()
}

#[pyfunction]
fn system_batch(py: Python<'_>, time_s: u32, agent_id: u16, rows: &str) -> PyResult<Py<PyBytes>> {
    let data = system::system_batch(time_s, agent_id, rows).map_err(PyValueError::new_err)?;
    Ok(PyBytes::new(py, &data).unbind())
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(replay_file, module)?)?;
    module.add_function(wrap_pyfunction!(registry, module)?)?;
    module.add_function(wrap_pyfunction!(tables, module)?)?;
    module.add_function(wrap_pyfunction!(system_batch, module)?)?;
    Ok(())
}
