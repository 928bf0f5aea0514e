//! Compiles bpf/*.bpf.c with clang and places the stripped objects in OUT_DIR.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 5] = ["socket", "syscall", "process", "sockopt", "probe"];

/// The first of `names` that runs.
fn tool(names: &[String]) -> Option<String> {
    let runs = |name: &&String| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    names.iter().find(runs).cloned()
}

fn candidates(variable: &str, name: &str) -> Vec<String> {
    let versions = (14..=22).rev().map(|version| format!("{name}-{version}"));
    env::var(variable).into_iter().chain([format!("{name}-19"), name.to_owned()]).chain(versions).collect()
}

pub fn build() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../bpf");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=LLVM_STRIP");
    let clang = tool(&candidates("CLANG", "clang")).unwrap_or_else(|| {
        panic!("clang is needed to compile the kernel programs: install Debian's clang-19, or set CLANG to its path")
    });
    // Without it the objects only carry DWARF that nobody reads.
    let strip = tool(&candidates("LLVM_STRIP", "llvm-strip"));
    for program in PROGRAMS {
        let source = folder.join(format!("{program}.bpf.c"));
        let object = out.join(format!("{program}.bpf.o"));
        let done = Command::new(&clang)
            .args(["-g", "-O2", "-target", "bpf", "-D__TARGET_ARCH_x86", "-mcpu=v3", "-Wall", "-Werror", "-c"])
            .arg(&source)
            .arg("-o")
            .arg(&object)
            .output()
            .unwrap_or_else(|error| panic!("{clang} could not be started: {error}"));
        if !done.status.success() {
            panic!("{clang} refused {}:\n{}", source.display(), String::from_utf8_lossy(&done.stderr));
        }
        if let Some(strip) = &strip {
            let stripped = Command::new(strip).arg("-g").arg(&object).status();
            assert!(stripped.is_ok_and(|status| status.success()), "{strip} failed on {}", object.display());
        }
    }
}
