use super::*;

fn tools(dpdk: &str, rustc: &str) -> Tools {
    Tools {
        dpdk: dpdk.into(),
        rustc: rustc.into(),
        libc: "glibc 2.36".into(),
        valgrind: "valgrind-3.19.0".into(),
    }
}

/// Two paths; the first costs `ringwire`, beside `net_vhost`.
fn baseline(ringwire: f64, net_vhost: f64) -> Baseline {
    let paths = [("a", ringwire, net_vhost), ("b", 10.0, 20.0)];
    let paths = paths.map(|(path, ringwire, net_vhost)| (path.to_owned(), Counts { ringwire, net_vhost }));
    Baseline { tools: tools("22.11.11", "rustc 1"), paths: paths.into() }
}

fn worse(verdict: Verdict) -> String {
    match verdict {
        Verdict::Worse(lines) => lines.join("\n"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_percent_more_is_worse_and_less_is_worth_a_note() {
    let before = baseline(100.0, 300.0);
    assert_eq!(before.judge(&baseline(101.9, 300.0)), Verdict::Good(vec![]));
    assert_eq!(worse(before.judge(&baseline(102.1, 300.0))), "+2.1% on a: 100.00 -> 102.10");
    let better = before.judge(&baseline(50.0, 300.0));
    assert_eq!(better, Verdict::Good(vec!["-50.0% on a: 100.00 -> 50.00".into()]));
}

#[test]
fn the_compiler_is_no_excuse_but_is_named() {
    let (before, mut after) = (baseline(100.0, 300.0), baseline(110.0, 300.0));
    after.tools = tools("22.11.11", "rustc 2");
    let said = worse(before.judge(&after));
    assert!(
        said.starts_with("+10.0% on a") && said.contains("rustc 1") && said.contains("rustc 2"),
        "{said}"
    );
    assert_eq!(before.judge(&Baseline { tools: after.tools, ..before.clone() }), Verdict::Good(vec![]));
}

#[test]
fn another_yardstick_with_other_tools_says_nothing() {
    let (before, mut after) = (baseline(100.0, 300.0), baseline(200.0, 310.0));
    assert!(worse(before.judge(&after)).contains("what is measured has changed"));
    after.tools = tools("22.11.12", "rustc 1");
    assert!(matches!(before.judge(&after), Verdict::Skipped(why) if why.contains("22.11.12")));
}

#[test]
fn paths_do_not_come_and_go_unseen() {
    let (before, mut after) = (baseline(100.0, 300.0), baseline(100.0, 300.0));
    after.paths.remove("b");
    assert_eq!(worse(before.judge(&after)), "b: in the baseline, and not measured any more");
    assert_eq!(worse(after.judge(&before)), "b: measured, and not in the baseline");
}

#[test]
fn there_is_one_baseline_a_release() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("baseline.json");
    let now = baseline(100.0, 300.0);
    assert!(matches!(check(&file, &now), Ok(Verdict::Skipped(_))));
    update(&file, now.clone()).expect("written");
    update(&file, Baseline { tools: tools("24.11.3", "rustc 1"), ..now.clone() }).expect("written");
    update(&file, baseline(90.0, 300.0)).expect("written");
    assert_eq!(read(&file).expect("read").keys().collect::<Vec<_>>(), ["22.11", "24.11"]);
    assert!(worse(check(&file, &now).expect("read")).starts_with("+11.1% on a"));
}
