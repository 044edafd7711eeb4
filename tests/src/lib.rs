//! The rig of the whole-system tests: a real `ringwired`, real frontends, real NIC drivers.
//!
//! - [`scene`]: one test's temporary directory, configuration and daemon
//! - [`daemon`]: `ringwired` as a child, and what its API says
//! - [`testpmd`]: DPDK's testpmd, as a guest (virtio-user) or as a NIC's peer
//! - [`frames`], [`pcap`]: what is sent, and the files it is sent from and received into
//! - [`feature_mask`]: a frontend that does not know some feature bits
//! - [`bare_guest`]: a frontend of our own, ring by ring
//! - [`child`], [`wait`], [`cores`]: processes, bounded waiting, who runs where
//!
//! Every wait is bounded and every child dies with its test: children stay in the test's process group,
//! which cargo-nextest ends as a whole.

pub mod bare_guest;
pub mod child;
pub mod cores;
pub mod daemon;
pub mod feature_mask;
pub mod frames;
pub mod pcap;
pub mod scene;
pub mod testpmd;
pub mod wait;
