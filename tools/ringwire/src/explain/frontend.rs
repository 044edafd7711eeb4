//! A guest's way to us: the socket, who is connected to it, what was said, the memory it shares.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use snapshot::{Frontend, Guest, Port, SocketFile};

use super::sight::Seen;
use super::{Check, Mark};
use crate::host::{Host, Process};
use crate::units::{count, duration, memory as bytes};

/// The socket: there, and open to the process that names it in its command line.
pub fn socket(port: Seen<Port>, host: &Host) -> Vec<Check> {
    let Some(guest) = port.guest() else { return Vec::new() };
    let path = &guest.socket;
    let Some(file) = guest.frontend.socket_file else {
        let found = format!("the socket {path} is gone: somebody has removed it");
        let advice = format!(
            "ringwire port remove {}, then ringwire reload or port add: it is made anew",
            port.name()
        );
        return vec![match guest.connected {
            true => Check::note(
                "socket",
                port.name(),
                format!("{found}; the frontend is connected still"),
                advice,
            ),
            false => Check::fail("socket", port.name(), found, advice),
        }];
    };
    let SocketFile { mode, user, group } = file;
    let place = format!("{path}, mode {mode:04o}, user {user}, group {group}");
    let barred =
        naming(guest, host).into_iter().find_map(|process| Some((barrier(&process, path, file)?, process)));
    match barred {
        Some((barrier, process)) if !guest.connected => {
            let Process { name, pid, user, .. } = process;
            let found = format!("{name} (pid {pid}) of user {user} may not open its socket: {barrier}");
            let advice = "under [[guest]], set socket_group to a group that it is in, and socket_mode = \"0660\"; each \
                          directory above must let it through";
            vec![Check::fail("socket", port.name(), found, advice)]
        }
        _ => vec![Check::ok("socket", port.name(), place)],
    }
}

/// Processes that could be the frontend.
fn naming(guest: &Guest, host: &Host) -> Vec<Process> {
    let ours = |process: &Process| process.name.starts_with("ringwire");
    host.processes_naming(&guest.socket).into_iter().filter(|process| !ours(process)).collect()
}

/// What keeps a process from connecting.
fn barrier(process: &Process, path: &str, file: SocketFile) -> Option<String> {
    let SocketFile { mode, user, group } = file;
    let closed = Path::new(path).ancestors().skip(1).find_map(|directory| {
        let found = std::fs::metadata(directory).ok()?;
        let (mode, user, group) = (found.mode() & 0o7777, found.uid(), found.gid());
        let closed = !process.may(1, mode, user, group);
        closed.then(|| {
            format!("directory {} has mode {mode:04o}, user {user}, group {group}", directory.display())
        })
    });
    // To connect is to write (unix(7)).
    let shut = !process.may(2, mode, user, group);
    closed.or_else(|| shut.then(|| format!("{path} has mode {mode:04o}, user {user}, group {group}")))
}

/// Whether there is a frontend, that stays, and no other wants its place.
pub fn frontend(port: Seen<Port>, host: &Host) -> Vec<Check> {
    let Some(seen) = port.part(|port| port.guest.as_ref()) else { return Vec::new() };
    let guest = seen.now;
    let Guest { socket, connections, .. } = guest;
    let since = guest.frontend.since_seconds.map(duration);
    let came = seen.moved(|guest| guest.connections);
    let again = match came {
        0 => String::new(),
        _ => format!("; frontends come and go: {} came while this was looked at", count(came)),
    };
    if guest.connected {
        let so_long = since.map(|time| format!(" for {time}")).unwrap_or_default();
        let found = format!("connected{so_long} (frontends so far: {})", count(*connections));
        return vec![if guest.frontend.waiting {
            let found = format!("{found}; another one has connected, and is served when this one leaves");
            Check::note("frontend", port.name(), found, rivals(guest, host))
        } else if came > 0 {
            let advice = "the VMM or its guest's driver starts over and over: see its log, and ringwired's";
            Check::note("frontend", port.name(), format!("{found}{again}"), advice)
        } else {
            Check::ok("frontend", port.name(), found)
        }];
    }
    let mut found = format!("no frontend is connected to {socket}{again}");
    let advice = match &guest.frontend.hung_up {
        Some(why) => {
            found = format!("{found}: ringwired hung up on the last one: {why}");
            "the VMM broke the vhost-user protocol; ringwired's log has the details".to_owned()
        }
        None => match naming(guest, host).first() {
            Some(Process { name, pid, .. }) => {
                format!("{name} (pid {pid}) names this socket and is not connected: see its log")
            }
            None => {
                "no process on this host names this socket: start the guest, QEMU for example with -chardev \
                     socket,id=c0,path=SOCKET -netdev vhost-user,id=n0,chardev=c0 and shared memory"
                    .to_owned()
            }
        },
    };
    let before = match since {
        None => "none ever was".to_owned(),
        Some(time) => format!("so far: {}; the last one left {time} ago", count(*connections)),
    };
    vec![Check::fail("frontend", port.name(), format!("{found} ({before})"), advice)]
}

/// Who shares a socket that is one frontend's.
fn rivals(guest: &Guest, host: &Host) -> String {
    let named = naming(guest, host);
    let named: Vec<String> =
        named.iter().map(|Process { name, pid, .. }| format!("{name} (pid {pid})")).collect();
    let who = match &named[..] {
        [] => "two processes".to_owned(),
        named => named.join(" and "),
    };
    format!("{who} want the same socket: give each guest a [[guest]] of its own, and end what should be gone")
}

/// The memory it shares.
pub fn memory(port: Seen<Port>) -> Vec<Check> {
    let Some(guest) = port.guest() else { return Vec::new() };
    if guest.memory_regions > 0 {
        let found = format!("{} in regions: {}", bytes(guest.memory_bytes), guest.memory_regions);
        return vec![Check::ok("memory", port.name(), found)];
    }
    let refused = quoted(guest, &["SET_MEM_TABLE", "ADD_MEM_REG"]);
    let found = format!("the frontend has shared no memory with us{refused}");
    let advice = "the guest's memory must be a memfd, or a file on tmpfs or hugetlbfs, and shared: QEMU's -object \
                  memory-backend-memfd,share=on,... and -machine memory-backend=";
    vec![Check::fail("memory", port.name(), found, advice)]
}

/// What was refused last, where no check has said it.
pub fn messages(port: Seen<Port>, said: &[Check]) -> Option<Check> {
    let Frontend { refused, .. } = &port.guest()?.frontend;
    let refused =
        refused.as_ref().filter(|refused| !said.iter().any(|check| check.found.contains(*refused)))?;
    let found = format!("ringwired refused what the frontend asked for: {refused}");
    let advice = "compare the VMM's options with [[guest]] (its queues above all); the log has each refusal";
    let missing = said.iter().any(|check| check.mark == Mark::Fail);
    // What failed is known then, and this may be why, or not.
    Some(match missing {
        true => Check::ok("messages", port.name(), found),
        false => Check::note("messages", port.name(), found, advice),
    })
}

/// What was refused last, if it was one of `messages`, to go behind what it has led to.
pub fn quoted(guest: &Guest, messages: &[&str]) -> String {
    let is_one = |refused: &&String| messages.iter().any(|message| refused.starts_with(message));
    match guest.frontend.refused.as_ref().filter(is_one) {
        Some(refused) => format!(": ringwired refused {refused}"),
        None => String::new(),
    }
}
