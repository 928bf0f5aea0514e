//! Delays, health and ends of single flows: hand-built, of others' captures, and at random.

#[path = "../driver/mod.rs"]
mod driver;
mod ends;
mod packets;
mod published;
mod random;
mod timing;
