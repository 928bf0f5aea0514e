//! Build steps: kernel objects from `bpf/`, row builders from `schema/`.
mod bpf;
mod rows;

fn main() {
    bpf::build();
    rows::build();
}
