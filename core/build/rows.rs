//! Generates the Arrow builders of the tables in schema/*.yaml into OUT_DIR.

pub fn build() {}
