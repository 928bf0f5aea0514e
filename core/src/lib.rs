//! The whole Python surface of the core, and nothing else.

pub mod agent;
pub mod batch;
pub mod bpf;
pub mod causality;
pub mod connection;
pub mod endpoints;
pub mod engine;
pub mod event;
pub mod flow;
pub mod joined;
pub mod meter;
mod mounts;
pub mod packet;
pub mod packets;
pub mod peers;
pub mod protocols;
pub mod replay;
pub mod rows;
pub mod session;
pub mod stream;
pub mod system;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::json;

use agent::Running;
use engine::{Batch, EngineConfig};

type PyBatch = (String, usize, Py<PyBytes>);

fn to_python(py: Python<'_>, batches: Vec<Batch>) -> Vec<PyBatch> {
    batches.into_iter().map(|(table, rows, data)| (table.to_string(), rows, PyBytes::new(py, &data).unbind())).collect()
}

/// The running capture.
#[pyclass]
struct Agent {
    config: Mutex<EngineConfig>,
    running: Mutex<Option<Running>>,
}

fn poisoned<T>(_: T) -> String {
    "the core failed before; restart the agent".to_string()
}

impl Agent {
    fn with<T: Send>(&self, py: Python<'_>, ask: impl FnOnce(&Running) -> Result<T, String> + Send) -> PyResult<T> {
        py.detach(|| {
            let running = self.running.lock().map_err(poisoned)?;
            ask(running.as_ref().ok_or("the agent is not started; call start() first")?)
        })
        .map_err(PyOSError::new_err)
    }
}

#[pymethods]
impl Agent {
    #[new]
    fn new(config: &str) -> PyResult<Self> {
        let config = EngineConfig::from_json(config).map_err(PyValueError::new_err)?;
        Ok(Self { config: Mutex::new(config), running: Mutex::new(None) })
    }

    fn start(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| {
            let config = self.config.lock().map_err(poisoned)?.clone();
            let started = Running::start(&config)?;
            let hooks: Vec<_> = started
                .hooks
                .iter()
                .map(|hook| json!({"what": hook.what, "chosen": hook.chosen, "lost": hook.lost}))
                .collect();
            *self.running.lock().map_err(poisoned)? = Some(started);
            Ok(json!({ "hooks": hooks }).to_string())
        })
        .map_err(|e: String| PyOSError::new_err(e))
    }

    #[pyo3(signature = (flush_all = false))]
    fn drain(&self, py: Python<'_>, flush_all: bool) -> PyResult<Vec<PyBatch>> {
        let batches = self.with(py, |running| running.drain(flush_all))?;
        Ok(to_python(py, batches))
    }

    fn process_changes(&self, py: Python<'_>) -> PyResult<String> {
        let changes = self.with(py, Running::process_changes)?;
        Ok(serde_json::to_string(&changes).unwrap_or_else(|_| "[]".into()))
    }

    fn active_processes(&self, py: Python<'_>) -> PyResult<String> {
        let active = self.with(py, Running::active_processes)?;
        Ok(serde_json::to_string(&active).unwrap_or_else(|_| "[]".into()))
    }

    fn listeners(&self, py: Python<'_>, table: &str) -> PyResult<()> {
        self.with(py, |running| running.listeners(table))
    }

    fn sockets(&self, py: Python<'_>, table: &str) -> PyResult<()> {
        self.with(py, |running| running.sockets(table))
    }

    fn set_agent_id(&self, py: Python<'_>, agent_id: u16) -> PyResult<()> {
        if let Ok(mut config) = self.config.lock() {
            config.agent_id = agent_id;
        }
        if self.running.lock().is_ok_and(|running| running.is_none()) {
            return Ok(());
        }
        self.with(py, |running| running.set_agent_id(agent_id))
    }

    fn set_throttle(&self, py: Python<'_>, rows_per_second: u32) -> PyResult<()> {
        self.with(py, |running| running.set_throttle(rows_per_second))
    }

    fn interfaces(&self, py: Python<'_>) -> PyResult<String> {
        let interfaces = self.with(py, |running| Ok(running.interfaces()))?;
        Ok(serde_json::to_string(&*interfaces).unwrap_or_else(|_| "[]".into()))
    }

    fn counters(&self, py: Python<'_>) -> PyResult<BTreeMap<String, u64>> {
        self.with(py, Running::counters)
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| {
            if let Ok(mut running) = self.running.lock() {
                running.take();
            }
        });
    }
}

#[pyfunction]
fn probe(py: Python<'_>) -> String {
    let lines = py.detach(bpf::probe);
    let lines: Vec<_> = lines
        .iter()
        .map(|line| json!({"what": line.what, "works": line.works, "detail": line.detail, "lost": line.lost}))
        .collect();
    serde_json::Value::from(lines).to_string()
}

#[pyfunction]
fn cgroup_tree() -> Option<PathBuf> {
    bpf::cgroup_tree().ok()
}

#[pyfunction]
#[pyo3(name = "replay")]
fn replay_file(py: Python<'_>, path: &str, config: &str) -> PyResult<Vec<PyBatch>> {
    let batches = py.detach(|| replay::replay(path, config)).map_err(PyValueError::new_err)?;
    Ok(to_python(py, batches))
}

/// The same, with what every stage counted.
#[pyfunction]
fn replay_counted(py: Python<'_>, path: &str, config: &str) -> PyResult<(Vec<PyBatch>, BTreeMap<&'static str, u64>)> {
    let replayed = py.detach(|| replay::replay_with_counters(path, config)).map_err(PyValueError::new_err)?;
    Ok((to_python(py, replayed.batches), replayed.counters.into_iter().collect()))
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
    module.add_class::<Agent>()?;
    module.add_function(wrap_pyfunction!(probe, module)?)?;
    module.add_function(wrap_pyfunction!(cgroup_tree, module)?)?;
    module.add_function(wrap_pyfunction!(replay_file, module)?)?;
    module.add_function(wrap_pyfunction!(replay_counted, module)?)?;
    module.add_function(wrap_pyfunction!(registry, module)?)?;
    module.add_function(wrap_pyfunction!(tables, module)?)?;
    module.add_function(wrap_pyfunction!(system_batch, module)?)?;
    Ok(())
}
