//! What cannot be is refused in one clear line, and nothing changes.

use tests::cores;

use crate::witness::{PAIRS, Witness};

#[test]
fn what_cannot_be_is_refused_and_nothing_changes() {
    let witness = Witness::start(|lan, scene| {
        lan.veth("wire0");
        lan.tap("tap0", &[]);
        scene.nic("wire0", "net_null0,no-rx=1", 1, "");
        scene.socket_port("tap", "tap0", "tap0", "");
        scene.guest("vm1", "wire0", 1);
        scene.add("fallback = \"tap0\"\n");
        scene.socket_port("tap", "tap1", "rw-tap1", "");
        scene.guest("vm2", "none", 1);
        scene.add("punt = \"tap1\"\n");
        scene.socket_port("tap", "tap2", "rw-tap2", "");
        scene.guest("vm3", "tap2", 1);
    });
    let daemon = &witness.daemon;
    let (core, pairs) = (cores::worker(), PAIRS);
    let allowed = cores::all();
    let path = |name: &str| witness.scene.socket(name).display().to_string();
    let (near, vm9, nowhere) = (path("near"), path("vm9"), "/nowhere/vm9.sock");
    let api = witness.scene.path("api.sock").display().to_string();
    let core_text = core.to_string();
    let cases: Vec<(Vec<&str>, String)> = vec![
        (vec!["worker", "add", "999"], format!("this process may not run on core 999 (allowed: {allowed})")),
        (vec!["worker", "add", &core_text], format!("core {core} has a worker already")),
        (vec!["worker", "remove", "999"], "core 999 has no worker".into()),
        (
            vec!["worker", "remove", &core_text],
            format!("core {core} has the last worker: add another one first"),
        ),
        (vec!["worker", "assign", "near:0", "999"], "core 999 has no worker".into()),
        (
            vec!["worker", "assign", "near:7", &core_text],
            format!("near has no queue pair 7: it has {pairs}, from 0 on"),
        ),
        (vec!["worker", "assign", "wire0:0", &core_text], "no guest is called \"wire0\"".into()),
        (vec!["port", "remove", "vm9"], "no port is called \"vm9\"".into()),
        (vec!["port", "remove", "wire0"], "wire0 is the backend of vm1: give that another one first".into()),
        (vec!["port", "remove", "tap0"], "tap0 is the fallback of vm1: give that another one first".into()),
        (vec!["port", "remove", "near"], "near is the backend of far: give that another one first".into()),
        (
            vec!["port", "add", "nic", "vm1", "--device", "net_null7"],
            "there is a port called vm1 already".into(),
        ),
        (
            vec!["port", "add", "nic", "wire9", "--device", "net_null0,size=64"],
            "device: same as that of wire0: a device is one nic; vdev names are unique (net_pcap0, net_pcap1, ...)"
                .into(),
        ),
        (
            vec!["port", "add", "tap", "tap9", "--interface", "tap0"],
            "interface: same as that of tap0: an interface is one port".into(),
        ),
        (
            vec!["port", "add", "raw", "raw9", "--interface", "rw-tap2"],
            "interface: same as that of tap2: an interface is one port".into(),
        ),
        (
            vec!["port", "add", "nic", "wire9", "--device", "net_nosuch0"],
            "nic wire9: cannot probe device \"net_nosuch0\": No such device (errno 19); DPDK says: EAL: failed to parse \
             device \"net_nosuch0\""
                .into(),
        ),
        (
            vec!["port", "add", "nic", "wire9", "--device", "net_pcap9,rx_pcap=/nowhere"],
            "nic wire9: cannot probe device \"net_pcap9,rx_pcap=/nowhere\": DPDK says: open_single_rx_pcap(): Couldn't \
             open /nowhere: /nowhere: No such file or directory"
                .into(),
        ),
        (
            vec!["port", "add", "nic", "wire9", "--device", "net_null9", "--queues", "0"],
            "queues: expected an integer from 1 to 128, found the integer 0".into(),
        ),
        (
            vec!["port", "add", "guest", "vm9", "--socket", &near],
            "socket: same as that of near: each socket is listened on once".into(),
        ),
        (
            vec!["port", "add", "guest", "vm9", "--socket", &api],
            "socket: same as that of the control API: each socket is listened on once".into(),
        ),
        (
            vec!["port", "add", "guest", "vm9", "--socket", &vm9, "--punt", "tap1"],
            "tap1 is the exception path of vm2".into(),
        ),
        (
            vec!["port", "add", "guest", "vm9", "--socket", &vm9, "--punt", "tap2"],
            "tap2 is the backend of vm3 already".into(),
        ),
        (
            vec!["port", "add", "guest", "vm9", "--socket", nowhere],
            format!("guest vm9: {nowhere}: directory /nowhere does not exist"),
        ),
        (
            vec!["port", "add", "guest", "vm9", "--socket", &vm9, "--backend", "wire0"],
            "wire0 is the backend of vm1 already".into(),
        ),
        (
            vec!["port", "add", "guest", "vm9", "--socket", &vm9, "--mode", "client"],
            "mode: \"client\" is not supported in this version (allowed: \"server\")".into(),
        ),
    ];
    let shape = || {
        let status = daemon.status();
        let ports: Vec<_> = status.ports.iter().map(|port| (port.name.clone(), port.state.clone())).collect();
        let workers: Vec<_> =
            status.workers.into_iter().map(|worker| (worker.core, worker.assigned)).collect();
        (ports, workers, std::fs::exists(&vm9).expect("a path"))
    };
    let before = shape();
    for (arguments, refused) in cases {
        let output = daemon.client(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), said.as_ref()),
            (Some(1), format!("ringwire: {refused}\n").as_str())
        );
        assert_eq!(shape(), before, "{arguments:?}");
    }
    for (port, body) in [
        ("wire9", r#"{"kind": "nic", "device": "net_null0"}"#),
        ("raw9", r#"{"kind": "raw", "interface": "tap0"}"#),
        ("vm9", &format!(r#"{{"kind": "guest", "socket": {near:?}}}"#)),
        ("vm9", &format!(r#"{{"kind": "guest", "socket": {vm9:?}, "punt": "tap1"}}"#)),
    ] {
        let (code, said) = daemon.request("PUT", &format!("/v1/ports/{port}"), body).expect("an answer");
        assert_eq!(code, 409, "{body}: {said}");
    }
    witness.end(&[]);
}

/// More NICs than there is memory for: the one that has none is refused, and those that were there work on.
#[test]
fn a_nic_that_finds_no_memory_is_refused() {
    let witness =
        Witness::start(|_, scene| scene.add("[eal]\nhugepages = \"never\"\nargs = [\"-m\", \"128\"]\n"));
    let add = |number: usize| {
        let (name, device) = (format!("null{number}"), format!("net_null{number}"));
        witness.daemon.client(&["port", "add", "nic", &name, "--device", &device])
    };
    let refused = (0..20).map(|number| (number, add(number))).find(|(_, output)| !output.status.success());
    let (number, output) = refused.expect("128 MiB are no room for twenty NICs");
    let said = String::from_utf8_lossy(&output.stderr);
    println!("NIC {number}: {said}");
    assert!(number > 2, "{said}");
    assert!(
        said.starts_with(&format!("ringwire: nic null{number}: ")) && said.lines().count() == 1,
        "{said}"
    );
    assert!(
        said.ends_with(
            ": without hugepages DPDK's memory is fixed when ringwired starts, and too little is left; [eal] args = \
             [\"-m\", \"MB\"] sets how much there is\n"
        ),
        "{said}"
    );
    // There is room again where one was.
    witness.client(&["port", "remove", "null1"]);
    assert!(add(number).status.success());
    witness.end(&[]);
}
