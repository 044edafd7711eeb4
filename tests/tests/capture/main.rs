//! `ringwire capture`: tshark reads what it writes, and agrees with the counters; and nothing that a capture, or who
//! reads it, does is noticed by the traffic.

mod ends;
mod frames;
mod overload;
mod ports;
mod recording;
