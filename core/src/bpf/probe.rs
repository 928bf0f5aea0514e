//! What this kernel and these privileges allow, found by trying (`deepflow doctor`).

use std::fs;

use aya::maps::RingBuf;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::uprobe::UProbeScope;
use aya::programs::{FEntry, KProbe, PerfEvent, Program, ProgramError, UProbe};
use aya::{Btf, Ebpf, EbpfLoader};

use super::capture::{CaptureConfig, Hook, load_processes, load_sockets, reason, tracepoint};
use super::object;
use super::sockopt::OptionTracing;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeLine {
    pub what: String,
    pub works: bool,
    /// Which way it works, or why it does not.
    pub detail: String,
    /// What is missing without it; empty when it works.
    pub lost: String,
}

const CAPABILITIES: [(&str, u32, &str); 5] = [
    ("CAP_BPF", 39, "kernel programs cannot be loaded, unless CAP_SYS_ADMIN is there"),
    ("CAP_PERFMON", 38, "tracing programs cannot be loaded, unless CAP_SYS_ADMIN is there"),
    ("CAP_SYS_ADMIN", 21, "kernels before 5.8 need it; newer ones do with CAP_BPF and CAP_PERFMON"),
    ("CAP_NET_ADMIN", 12, "the sender's address of datagrams received on unconnected sockets"),
    ("CAP_NET_RAW", 13, "packets: flows, network metrics, and each hop of a call"),
];

/// Effective capabilities of this process, as a bit mask.
fn capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}

fn has(mask: u64, capability: u32) -> bool {
    mask >> capability & 1 == 1
}

fn may_load() -> bool {
    let mask = capabilities();
    has(mask, 21) || (has(mask, 39) && has(mask, 38))
}

/// The kernel's own type information, or a sentence.
pub(super) fn kernel_btf() -> Result<Btf, String> {
    Btf::from_sys_fs().map_err(|error| {
        format!(
            "This kernel offers no BTF type information in /sys/kernel/btf/vmlinux ({}): a kernel built with \
             CONFIG_DEBUG_INFO_BTF=y is needed.",
            reason(&error)
        )
    })
}

/// One sentence on why no socket hook loads.
pub(super) fn why_not(refusals: &str) -> String {
    if may_load() {
        return format!(
            "The kernel refuses every way to observe sockets ({refusals}); `deepflow doctor` shows what it allows."
        );
    }
    "Kernel programs need privileges that this process does not have: run it as root, or give it CAP_BPF, CAP_PERFMON \
     and CAP_NET_ADMIN (CAP_SYS_ADMIN on kernels before 5.8)."
        .to_owned()
}

fn line(what: &str, result: Result<String, String>, lost: &str) -> ProbeLine {
    match result {
        Ok(detail) => ProbeLine { what: what.to_owned(), works: true, detail, lost: String::new() },
        Err(detail) => ProbeLine { what: what.to_owned(), works: false, detail, lost: lost.to_owned() },
    }
}

/// The empty program `name` of the probe object.
fn program<'a, P>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = bpf.program_mut(name).ok_or("the program is missing")?;
    <&mut P>::try_from(program).map_err(|error| reason(&error))
}

fn fentry(bpf: &mut Ebpf, btf: &Btf) -> Result<String, ProgramError> {
    let Some(program) = bpf.program_mut("probe_fentry") else {
        return Ok(String::new());
    };
    let program: &mut FEntry = program.try_into()?;
    program.load("tcp_sendmsg", btf)?;
    program.attach()?;
    Ok("attached to tcp_sendmsg".to_owned())
}

fn kprobe(bpf: &mut Ebpf) -> Result<String, String> {
    let program: &mut KProbe = program(bpf, "probe_kprobe")?;
    program.load().map_err(|error| reason(&error))?;
    program.attach("tcp_sendmsg", 0).map_err(|error| reason(&error))?;
    Ok("attached to tcp_sendmsg".to_owned())
}

fn uprobe(bpf: &mut Ebpf) -> Result<String, String> {
    let program: &mut UProbe = program(bpf, "probe_uprobe")?;
    program.load().map_err(|error| reason(&error))?;
    program.attach("malloc", "libc", UProbeScope::CallingProcess).map_err(|error| reason(&error))?;
    Ok("attached to malloc of this process".to_owned())
}

fn perf_event(bpf: &mut Ebpf) -> Result<String, String> {
    let program: &mut PerfEvent = program(bpf, "probe_perf_event")?;
    program.load().map_err(|error| reason(&error))?;
    program
        .attach(
            PerfEventConfig::Software(SoftwareEvent::CpuClock),
            PerfEventScope::AllProcessesOneCpu { cpu: 0 },
            SamplePolicy::Frequency(99),
            false,
        )
        .map_err(|error| reason(&error))?;
    Ok("software CPU clock, 99 Hz".to_owned())
}

fn tracefs() -> Result<String, String> {
    let found = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .find(|path| fs::exists(format!("{path}/events")).unwrap_or(false));
    found.map(str::to_owned).ok_or_else(|| "not mounted, or not readable".to_owned())
}

/// Tries every kind of hook by loading and attaching it, and undoes it at once. Never fails: what is not allowed is a
/// line of the answer.
pub fn probe() -> Vec<ProbeLine> {
    let mask = capabilities();
    let mut lines: Vec<ProbeLine> = CAPABILITIES
        .iter()
        .map(|&(name, bit, lost)| {
            let present = if has(mask, bit) { Ok("present".to_owned()) } else { Err("missing".to_owned()) };
            line(name, present, lost)
        })
        .collect();
    let btf = kernel_btf();
    let found = btf.as_ref().map(|_| "/sys/kernel/btf/vmlinux".to_owned()).map_err(Clone::clone);
    lines.push(line("kernel type information (BTF)", found, "all kernel programs"));
    let no_btf = || "needs BTF".to_owned();
    let config = CaptureConfig { ring_bytes: 4096, ..CaptureConfig::default() };
    let with_btf = |try_it: &dyn Fn(&Btf) -> Result<String, String>| match &btf {
        Ok(btf) => try_it(btf),
        Err(_) => Err(no_btf()),
    };
    let hook =
        |hook: Hook, detail: &'static str| with_btf(&|btf| load_sockets(hook, &config, btf).map(|_| detail.to_owned()));
    lines.push(line("ring buffer", with_btf(&ring_buffer), "all kernel programs"));
    lines.push(line(
        "sockets by socket-length tracepoints",
        hook(Hook::SockLength, "tp_btf/sock_send_length, tp_btf/sock_recv_length"),
        "the cheap way to see sockets; the system call hook is used instead and every system call pays",
    ));
    lines.push(line(
        "sockets by system calls (fallback)",
        hook(Hook::SysEnter, "tp_btf/sys_exit"),
        "sockets on kernels without the socket-length tracepoints",
    ));
    let set_state = with_btf(&|btf| {
        let mut bpf =
            load_sockets(Hook::SockLength, &config, btf).or_else(|_| load_sockets(Hook::SysEnter, &config, btf))?;
        tracepoint(&mut bpf, "inet_sock_set_state", "inet_sock_set_state", btf).map_err(|error| reason(&error))?;
        Ok("tp_btf/inet_sock_set_state".to_owned())
    });
    lines.push(line(
        "beginning and end of connections",
        set_state,
        "the cause of a connection's first request when a thread connects ahead",
    ));
    let processes = with_btf(&|btf| {
        load_processes(btf).map(|_| "tp_btf/sched_process_exec, sched_process_fork, sched_process_exit".to_owned())
    });
    lines.push(line("processes", processes, "processes that live shorter than a scan of /proc"));
    let options = OptionTracing::attached(0).map(|(_, tree)| match tree.lost() {
        Some(lost) => format!("sockops on {}, without {lost}", tree.path()),
        None => format!("sockops on {}", tree.path()),
    });
    lines.push(line("TCP option tracing", options, "TCP options with the sender, when they are asked for"));
    let empty = || EbpfLoader::new().load(object::PROBE).map_err(|error| reason(&error));
    let fentry = with_btf(&|btf| fentry(&mut empty()?, btf).map_err(|error| reason(&error)));
    let lost = "flows, network metrics, and each hop of a call";
    lines.push(line("packets of interfaces", crate::packet::live::probe(), lost));
    lines.push(line("fentry", fentry, "hooks on kernel functions; nothing uses them yet"));
    let kprobe = empty().and_then(|mut bpf| kprobe(&mut bpf));
    lines.push(line("kprobe", kprobe, "hooks on kernel functions of older kernels; nothing uses them yet"));
    let uprobe = empty().and_then(|mut bpf| uprobe(&mut bpf));
    lines.push(line("uprobe", uprobe, "clear text of TLS and of Go programs, once that is built"));
    let perf_event = empty().and_then(|mut bpf| perf_event(&mut bpf));
    lines.push(line("perf_event sampling", perf_event, "continuous profiles, once they are built"));
    lines.push(line("tracefs", tracefs(), "hooks by tracefs event ids; nothing uses them yet"));
    lines
}

/// Creates a ring and maps it.
fn ring_buffer(btf: &Btf) -> Result<String, String> {
    let mut bpf = EbpfLoader::new().btf(Some(btf)).load(object::PROCESS).map_err(|error| reason(&error))?;
    let map = bpf.take_map("processes").ok_or("the map is missing")?;
    let mut ring = RingBuf::try_from(map).map_err(|error| reason(&error))?;
    let empty = ring.next().is_none();
    Ok(format!("created and mapped{}", if empty { "" } else { ", with records" }))
}
