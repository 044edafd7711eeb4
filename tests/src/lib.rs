//! The rig of the whole-system tests: a real `ringwired`, real frontends, real NIC drivers.
//!
//! - [`scene`]: one test's temporary directory, configuration and daemon
//! - [`daemon`]: `ringwired` as a child, and what its API says
//! - [`balance`]: the sums over all ports between which a guest goes to and fro
//! - [`testpmd`]: DPDK's testpmd, as a guest (virtio-user) or as a NIC's peer
//! - [`pktgen`]: ringwire's own guests, which number what they send; [`pair`]: two of them, and what came of it
//! - [`frames`], [`pcap`]: what is sent, and the files it is sent from and received into
//! - [`exchange`]: frames both ways between such a guest and a pcap NIC, compared to the last byte
//! - [`relay`]: between a frontend and the backend: takes feature bits away, delays a start
//! - [`bare_guest`]: a frontend of our own, ring by ring
//! - [`offload_guest`]: one that leaves checksums and segments to the device, and takes them
//! - [`hostile`]: guests and frontends that do what they must not, beside one that does not
//! - [`requests`]: many requests a second to the API
//! - [`namespace`]: a network to put a NIC into
//! - [`lan`]: a network to be in, with a bridge between NICs, taps and raw sockets
//! - [`link_socket`], [`tap`]: the host at the other end of such a network
//! - [`linux_guest`]: a Linux in QEMU
//! - [`child`], [`threads`], [`wait`], [`cores`]: processes, bounded waiting, who runs where
//!
//! Every wait is bounded and every child dies with its test: children stay in the test's process group,
//! which cargo-nextest ends as a whole.

pub mod balance;
pub mod bare_guest;
pub mod child;
mod connection;
pub mod cores;
pub mod daemon;
pub mod exchange;
pub mod frames;
pub mod hostile;
pub mod lan;
pub mod link_socket;
pub mod linux_guest;
pub mod namespace;
pub mod offload_guest;
pub mod pair;
pub mod pcap;
pub mod pktgen;
pub mod relay;
pub mod requests;
pub mod scene;
pub mod tap;
pub mod testpmd;
pub mod threads;
pub mod wait;
