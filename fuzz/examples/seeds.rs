//! Writes hand-made inputs: where the corpus started from, and can again when an input's form has changed.
//!
//! `cargo run --example seeds DIRECTORY`, then `tools/fuzz --grow`.

use std::path::Path;

#[path = "../../dataplane/net/tests/common/mod.rs"]
mod common;

const CONFIG: [&str; 4] = [
    include_str!("../../tools/ringwired/src/config/tests/full.toml"),
    "datapath = { cores = [0x1] }\nnic = [{ name = 'a', device = 'net_null0' }]\n",
    "[datapath]\ncores = []\n",
    "[[tap]]\nname = \"t\"\n",
];

const API: [&str; 7] = [
    "\0GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
    "\u{10}GET /v1/ports/vm1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "\0GET /v1/ports HTTP/1.0\r\n\r\n",
    "\u{1}GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "\0PUT /v1/guests/vm1/backend HTTP/1.1\r\nHost: x\r\nContent-Length: 19\r\n\r\n{\"backend\":\"wire0\"}",
    "\0POST /v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "\0GET /v1/ports/%ff HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
];

/// Queue size, features, where the areas are, the base.
const STARTS: [&[u8]; 6] = [
    &[4, 0x03, 0],
    &[5, 0x07, 0],
    &[10, 0x06, 0],
    &[2, 0x43, 0, 63],
    // At the end of a region: what is read behind an area is outside.
    &[4, 0x03, 0x02, 1],
    &[3, 0x07, 0x2a, 1, 2, 2],
];

/// Moves on a ring, behind size, features and place.
const MOVES: [&[u8]; 9] = [
    // Chains in order; take, complete, publish.
    &[5, 0x0c, 0, 99, 0x09, 0x1b, 0, 0, 0x0c, 0x0e],
    &[5, 0x0d, 3, 40, 0x19, 0x0d, 0x19, 0x3b, 1, 0, 0x0c, 0x1e, 0x0f, 5, 4, 0, 20, 0x09],
    // An indirect table.
    &[3, 1, 0, 0x40, 0, 1, 0, 1, 0x07, 0, 1, 0x20, 0, 0x0f, 0, 0, 1, 0, 0x09, 0x0b, 0, 0, 0x0c],
    // A buffer across regions, and one in the hole.
    &[0, 0, 0x10, 0xf8, 0, 64, 0, 0, 0, 1, 0, 0x09, 0x0b, 9, 0, 0x0c],
    &[0, 1, 0x03, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x09],
    // An index that jumps; what follows.
    &[2, 0xff, 0x7f, 8, 0, 1, 0x09, 0x0c, 0x0f, 5, 1, 0, 30, 9],
    // A chain that goes on behind the last descriptor.
    &[0, 0, 1, 8, 0, 0, 64, 1, 242, 1, 0, 0x09, 0x0c],
    // Room for packets.
    &[5, 0x30, 0, 99, 0x0a, 200, 0, 12, 8, 0x0c, 0x0a, 0x40, 1, 12, 8, 0x0c, 0x1e],
    &[6, 3, 50, 0, 0x09, 0x2b, 5, 0, 0x0c, 4, 1, 0, 2, 0x0c, 6, 2, 9, 1, 0x09],
];

fn write(directory: &Path, target: &str, name: String, bytes: &[u8]) -> std::io::Result<()> {
    let directory = directory.join(target);
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(name), bytes)
}

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| "corpus".into());
    let directory = Path::new(&directory);
    for (n, text) in CONFIG.iter().enumerate() {
        write(directory, "config", format!("seed-{n}"), text.as_bytes())?;
    }
    for (n, text) in API.iter().enumerate() {
        write(directory, "api", format!("seed-{n}"), text.as_bytes())?;
    }
    for target in ["split_ring", "packed_ring"] {
        for (n, moves) in MOVES.iter().enumerate() {
            for (m, start) in STARTS.iter().enumerate() {
                write(directory, target, format!("seed-{n}-{m}"), &[*start, moves].concat())?;
            }
        }
    }
    // A frontend that sets everything up, then one message of each kind.
    for how in [0, 4, 12, 13, 28, 44, 76, 0xfc] {
        for flags in [0, 1, 32, 64] {
            let all: Vec<u8> = (0..50).flat_map(|code| [code, flags, 1, 0, 1, 3, 0, 0]).collect();
            write(directory, "session", format!("seed-{how}-{flags}"), &[&[how, 1][..], &all].concat())?;
        }
    }
    // Short frames of each kind.
    for (n, mut case) in common::matrix().into_iter().enumerate() {
        case.shape.payload = case.shape.payload.min(100);
        case.offload.gso_size = case.offload.gso_size.min(40);
        let input = [&[n as u8], &case.offload.to_bytes()[..], &case.shape.partial()].concat();
        write(directory, "net", format!("seed-{n}"), &input)?;
    }
    let raw: Vec<u8> = [vec![0, 230, 20], b"\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x09".to_vec()].concat();
    write(directory, "session", "seed-raw".into(), &raw)
}
