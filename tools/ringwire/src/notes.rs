//! Where packets stop: what in a snapshot keeps a port from carrying traffic, in words.

use snapshot::{Guest, Interface, Nic, Port, Status, Worker};

use crate::units::count;

/// One line for each thing in the way; empty when nothing is.
pub fn notes(status: &Status) -> Vec<String> {
    let workers = status.workers.iter().filter_map(worker);
    let ports = status.ports.iter().flat_map(|port| {
        let guest = port.guest.iter().flat_map(|guest| self::guest(port, guest, status));
        let nic = port.nic.iter().flat_map(|nic| self::nic(port, nic, status));
        let interface = port.interface.iter().flat_map(|part| interface(port, part));
        guest.chain(nic).chain(interface).map(|note| format!("{}: {note}", port.name)).collect::<Vec<_>>()
    });
    let none = status.ports.is_empty().then(|| "no port is configured".to_owned());
    workers.chain(none).chain(ports).collect()
}

fn worker(worker: &Worker) -> Option<String> {
    let rounds = worker.rates?.rounds_per_second;
    (worker.lanes > 0 && rounds == 0.0)
        .then(|| format!("{}: is stuck, it made no poll round in the last second", worker.name))
}

fn guest(port: &Port, guest: &Guest, status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    let backend = status.ports.iter().find(|port| port.name == guest.backend);
    if backend.is_none() {
        notes.push("has no backend, its virtqueues are parked".to_owned());
    }
    if guest.fallback.as_deref() == Some(&guest.backend) && guest.backend != guest.backend_wanted {
        notes.push(format!("runs on its fallback {}: {} has no link", guest.backend, guest.backend_wanted));
    }
    if !guest.connected {
        let (socket, so_far) = (&guest.socket, count(guest.connections));
        notes.push(format!("no frontend is connected to {socket} (so far: {so_far})"));
        return notes;
    }
    for queue in &guest.queues {
        if let Some(violation) = &queue.violation {
            let index = queue.index;
            notes.push(format!(
                "queue {index} was stopped, {violation} (reset the device or reconnect to start it again)"
            ));
        }
    }
    if port.state == "connected" {
        notes.push("a frontend is connected, but no queue pair runs: is the guest's driver up?".to_owned());
    }
    let parked = guest.queues.iter().filter(|q| q.enabled && q.violation.is_none() && q.owner == "parked");
    let parked: Vec<String> = parked.map(|queue| queue.index.to_string()).collect();
    if backend.is_some() && !parked.is_empty() {
        notes.push(format!("enabled, but nobody runs them: queues {}", parked.join(", ")));
    }
    let Some(backend) = backend else {
        return notes;
    };
    if port.held > 0 && backend.rates.is_some_and(|rates| rates.tx_pps == 0.0) {
        let held = count(port.held);
        notes.push(format!("{held} packets wait, {} has sent none in the last second", backend.name));
    }
    if port.state == "up" && port.rx_packets == 0 {
        notes.push("the guest has not sent a packet yet".to_owned());
    } else if port.rx_packets > 0 && backend.tx_packets == 0 {
        let sent = count(port.rx_packets);
        notes.push(format!("the guest has sent {sent} packets, none has left through {}", backend.name));
    }
    notes
}

fn nic(port: &Port, nic: &Nic, status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    if !nic.link_up {
        notes.push("the link is down".to_owned());
    }
    let is_backend = |other: &Port| other.guest.as_ref().is_some_and(|guest| guest.backend == port.name);
    if !status.ports.iter().any(is_backend) {
        notes.push("is no guest's backend".to_owned());
    } else if nic.link_up && port.rx_packets == 0 {
        notes.push("has not received a packet yet".to_owned());
    }
    let losses = ["imissed", "ierrors", "rx_nombuf", "oerrors"];
    let losses = losses.iter().filter_map(|name| match nic.device_stats.get(*name) {
        Some(lost @ 1..) => Some(format!("{name} {}", count(*lost))),
        _ => None,
    });
    let losses = losses.collect::<Vec<_>>().join(", ");
    if !losses.is_empty() {
        notes.push(format!("the device itself has lost packets: {losses}"));
    }
    notes
}

fn interface(port: &Port, part: &Interface) -> Vec<String> {
    let name = &part.name;
    let mut notes = Vec::new();
    match port.state.as_str() {
        "up" => {}
        "gone" => notes.push(format!("interface {name} was removed")),
        _ => notes.push(format!("interface {name} is down (ip link set {name} up)")),
    }
    notes
}

#[cfg(test)]
mod tests {
    use snapshot::{Rates, WorkerRates};

    use super::*;

    /// wire0 and vm1 carry traffic.
    fn healthy() -> Status {
        let text = include_str!("../../ringwired/tests/common/status.json");
        let mut status: Status = serde_json::from_str(text).unwrap();
        status.ports.retain(|port| ["wire0", "vm1"].contains(&port.name.as_str()));
        status.ports[0].nic.as_mut().unwrap().device_stats.clear();
        status
    }

    /// What is noted after `change` to a healthy datapath.
    fn after(change: impl FnOnce(&mut Status)) -> Vec<String> {
        let mut status = healthy();
        change(&mut status);
        notes(&status)
    }

    fn nic(status: &mut Status) -> &mut Nic {
        status.ports[0].nic.as_mut().unwrap()
    }

    fn guest(status: &mut Status) -> &mut Guest {
        status.ports[1].guest.as_mut().unwrap()
    }

    #[test]
    fn nothing_is_noted_when_packets_flow() {
        assert_eq!(notes(&healthy()), [""; 0]);
    }

    #[test]
    fn each_thing_in_the_way_is_noted() {
        let stuck = |status: &mut Status| status.workers[0].rates = Some(WorkerRates::default());
        assert_eq!(after(stuck), ["worker:1: is stuck, it made no poll round in the last second"]);
        assert_eq!(after(|status| nic(status).link_up = false), ["wire0: the link is down"]);
        let missed = |status: &mut Status| {
            nic(status).device_stats.insert("imissed".into(), 1234);
        };
        assert_eq!(after(missed), ["wire0: the device itself has lost packets: imissed 1,234"]);
        assert_eq!(
            after(|status| guest(status).backend = "none".into()),
            ["wire0: is no guest's backend", "vm1: has no backend, its virtqueues are parked"]
        );
        assert_eq!(
            after(|status| guest(status).connected = false),
            ["vm1: no frontend is connected to /run/ringwire/vm1.sock (so far: 3)"]
        );
        assert_eq!(
            after(|status| status.ports[1].state = "connected".into()),
            ["vm1: a frontend is connected, but no queue pair runs: is the guest's driver up?"]
        );
        assert_eq!(
            after(|status| guest(status).queues[1].owner = "parked".into()),
            ["vm1: enabled, but nobody runs them: queues 1"]
        );
        assert_eq!(
            after(|status| guest(status).queues[1].violation = Some("used twice".into())),
            ["vm1: queue 1 was stopped, used twice (reset the device or reconnect to start it again)"]
        );
        assert_eq!(after(|status| status.ports.clear()), ["no port is configured"]);
    }

    #[test]
    fn the_place_where_packets_stop_is_noted() {
        let full = |status: &mut Status| {
            status.ports[0].rates = Some(Rates::default());
            status.ports[1].held = 64;
        };
        assert_eq!(after(full), ["vm1: 64 packets wait, wire0 has sent none in the last second"]);
        let silent = |status: &mut Status| {
            status.ports.iter_mut().for_each(|port| port.rx_packets = 0);
        };
        assert_eq!(
            after(silent),
            ["wire0: has not received a packet yet", "vm1: the guest has not sent a packet yet"]
        );
        assert_eq!(
            after(|status| status.ports[0].tx_packets = 0),
            ["vm1: the guest has sent 600,100 packets, none has left through wire0"]
        );
    }
}
