//! The rig of the whole-system tests: a real `ringwired`, real frontends, real NIC drivers.
//!
//! - [`scene`]: one test's temporary directory, configuration and daemon
//! - [`daemon`]: `ringwired` as a child, and what its API says
//! - [`testpmd`]: DPDK's testpmd, as a guest (virtio-user) or as a NIC's peer
//! - [`frames`], [`pcap`]: what is sent, and the files it is sent from and received into
//! - [`exchange`]: frames both ways between such a guest and a pcap NIC, compared to the last byte
//! - [`relay`]: between a frontend and the backend: takes feature bits away, delays a start
//! - [`bare_guest`]: a frontend of our own, ring by ring
//! - [`hostile`]: guests and frontends that do what they must not, beside one that does not
//! - [`namespace`]: a network to put a NIC into
//! - [`child`], [`wait`], [`cores`]: processes, bounded waiting, who runs where
//!
//! Every wait is bounded and every child dies with its test: children stay in the test's process group,
//! which cargo-nextest ends as a whole.

pub mod bare_guest;
pub mod child;
pub mod cores;
pub mod daemon;
pub mod exchange;
pub mod frames;
pub mod hostile;
pub mod namespace;
pub mod pcap;
pub mod relay;
pub mod scene;
pub mod testpmd;
pub mod wait;
