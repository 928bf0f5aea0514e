//! TCP option tracing: a sockops program on the cgroup v2 tree, which writes sender, address and sequence number into
//! a TCP option. Connections that exist keep working without it, before and after.

use aya::EbpfLoader;
use aya::maps::{MapData, PerCpuArray};
use aya::programs::{CgroupAttachMode, ProgramError, SockOps};
use aya::{Btf, Ebpf};

use super::capture::reason;
use super::cgroup::Tree;
use super::{HookReport, object};

const WHAT: &str = "TCP option tracing";

/// Totals of `bpf/sockopt.bpf.c` since the start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionCounters {
    pub written: u64,
    /// Segments with no room for the option, or with one that another program wrote.
    pub refused: u64,
}

// SAFETY: two u64 and nothing else: any bytes are a valid value.
unsafe impl aya::Pod for OptionCounters {}

/// The attached program; dropping it detaches it.
pub struct OptionTracing {
    counters: PerCpuArray<MapData, OptionCounters>,
    _bpf: Ebpf,
}

impl OptionTracing {
    /// Loads the program and attaches it. `sampling_window` is in bytes; 0 marks every data segment. Never fails: what
    /// is refused is said in the report.
    pub fn start(sampling_window: u32) -> (Option<Self>, HookReport) {
        let report = |chosen: String, lost: String| HookReport { what: WHAT.to_owned(), chosen, lost };
        match Self::attached(sampling_window) {
            Ok((tracing, tree)) => (
                Some(tracing),
                report(format!("sockops on {}", tree.path()), tree.lost().unwrap_or_default().to_owned()),
            ),
            Err(why) => (None, report("none".to_owned(), format!("TCP options with the sender ({why})"))),
        }
    }

    pub(super) fn attached(sampling_window: u32) -> Result<(Self, Tree), String> {
        let btf = Btf::from_sys_fs().map_err(|error| reason(&error))?;
        let mut bpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("sampling_window", &sampling_window, true)
            .load(object::SOCKOPT)
            .map_err(|error| reason(&error))?;
        let tree = Tree::find()?;
        let program: &mut SockOps = bpf
            .program_mut("trace_options")
            .ok_or("the program is missing")?
            .try_into()
            .map_err(|error: ProgramError| reason(&error))?;
        program.load().map_err(|error| reason(&error))?;
        // A link allows other programs beside it, and takes no flag that says so.
        program.attach(tree.open()?, CgroupAttachMode::Single).map_err(|error| reason(&error))?;
        let counters = bpf.take_map("option_counters").ok_or("the map of counters is missing")?;
        let counters = PerCpuArray::try_from(counters).map_err(|error| reason(&error))?;
        Ok((Self { counters, _bpf: bpf }, tree))
    }

    pub fn counters(&self) -> OptionCounters {
        let mut total = OptionCounters::default();
        if let Ok(each) = self.counters.get(&0, 0) {
            for one in each.iter() {
                total.written += one.written;
                total.refused += one.refused;
            }
        }
        total
    }
}
