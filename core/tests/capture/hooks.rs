//! Which programs are attached, and what is said when they are not.

use _core::bpf::{Capture, CaptureConfig, probe};

use crate::seen::{ours, possible, start};

#[test]
fn the_best_hook_is_chosen_and_reported() {
    if !possible() {
        return;
    }
    let (_capture, reports) = start(&ours());
    let what: Vec<&str> = reports.iter().map(|report| report.what.as_str()).collect();
    assert!(what.starts_with(&["socket calls", "beginning and end of connections"]) && what.contains(&"processes"));
    let sockets = probe().into_iter().find(|line| line.what.contains("socket-length")).unwrap();
    assert_eq!(reports[0].chosen.contains("sock_send_length"), sockets.works, "{reports:?}");
}

#[test]
fn without_privileges_there_are_sentences() {
    // In a thread of its own: capabilities are given up for good.
    std::thread::spawn(|| {
        // SAFETY: zeroed data clears all capabilities of the calling thread (version 3, two words each).
        let dropped = unsafe {
            let header: [u32; 2] = [0x2008_0522, 0];
            let data = [0u32; 6];
            libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr())
        };
        assert_eq!(dropped, 0);
        let error = Capture::start(&CaptureConfig::default()).err().expect("started without privileges").to_string();
        if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            assert!(error.contains("CAP_BPF") && error.ends_with('.') && !error.contains('\n'), "{error}");
        }
        let lines = probe();
        let works = |what: &str| lines.iter().any(|line| line.what.starts_with(what) && line.works);
        assert!(!works("CAP_BPF") && !works("sockets by") && !works("ring buffer"), "{lines:#?}");
        assert!(lines.iter().all(|line| line.works == line.lost.is_empty() && !line.detail.is_empty()), "{lines:#?}");
    })
    .join()
    .unwrap();
}
