//! Frames to packets: tunnels, fragments, TCP options, and headers that lie.

#[path = "../driver/mod.rs"]
mod driver;
mod fragments;
mod frames;
mod options;
mod published;
mod tunnels;
