use super::*;

fn facts(free_hugepage_mb: u64) -> Facts {
    Facts { free_hugepage_mb, cpus: vec![0, 1, 2, 5], pid: 77, pci: true }
}

fn line(args: &EalArgs, facts: &Facts) -> String {
    choose(args, facts).unwrap().argv.join(" ")
}

fn extra(words: &[&str]) -> EalArgs {
    EalArgs { extra: words.iter().map(|&word| word.to_owned()).collect(), ..EalArgs::default() }
}

#[test]
fn without_hugepages_memory_is_ordinary_and_files_are_our_own() {
    assert_eq!(
        line(&EalArgs::default(), &facts(0)),
        "ringwired --log-level=*:warning --no-telemetry --lcores 0@(0-2,5) -a ffff:ff:1f.7 --no-huge \
         -m 256 --no-shconf --file-prefix=ringwire-77"
    );
}

#[test]
fn with_hugepages_nothing_is_shared() {
    let choice = choose(&EalArgs::default(), &facts(256)).unwrap();
    assert!(choice.hugepages);
    assert!(!choice.own_runtime_dir);
    assert_eq!(
        choice.argv.join(" "),
        "ringwired --log-level=*:warning --no-telemetry --lcores 0@(0-2,5) -a ffff:ff:1f.7 --in-memory"
    );
}

#[test]
fn without_a_pci_bus_dpdk_does_not_look_for_one() {
    let facts = Facts { pci: false, ..facts(0) };
    assert!(line(&EalArgs::default(), &facts).contains(" --no-pci "));
}

#[test]
fn spare_memory_is_for_when_it_cannot_be_had_later() {
    let args = EalArgs { memory_mb: 100, spare_mb: 50, ..EalArgs::default() };
    assert!(line(&args, &facts(99)).contains(" --no-huge -m 150 "));
    let line = line(&args, &facts(100));
    assert!(line.ends_with(" --in-memory"), "{line}");
}

#[test]
fn too_few_hugepages_are_left_alone() {
    assert!(!choose(&EalArgs::default(), &facts(255)).unwrap().hugepages);
}

#[test]
fn hugepages_can_be_declined() {
    let args = EalArgs { hugepages: HugepagePolicy::Never, ..EalArgs::default() };
    assert!(!choose(&args, &facts(4096)).unwrap().hugepages);
}

#[test]
fn required_hugepages_that_are_missing_are_an_error_with_the_fix() {
    let args = EalArgs { hugepages: HugepagePolicy::Require, memory_mb: 101, ..EalArgs::default() };
    let error = choose(&args, &facts(100)).unwrap_err().to_string();
    assert!(error.contains("100 MB are free and 101 MB are needed"), "{error}");
    assert!(error.contains("echo 51 > /sys/kernel/mm/hugepages"), "{error}");
    assert!(choose(&args, &facts(101)).unwrap().hugepages);
}

#[test]
fn each_pci_device_is_allowed() {
    let args =
        EalArgs { pci: vec!["0000:03:00.0".into(), "0000:04:00.0,foo=1".into()], ..EalArgs::default() };
    let line = line(&args, &facts(0));
    assert!(line.contains("(0-2,5) -a 0000:03:00.0 -a 0000:04:00.0,foo=1 --"), "{line}");
    assert!(!line.contains("--no-pci"), "{line}");
}

#[test]
fn extra_arguments_come_last_and_win() {
    let line = line(
        &extra(&["--no-pci", "--lcores=3", "-m512", "--file-prefix=x", "--log-level=pmd:debug"]),
        &facts(0),
    );
    assert_eq!(
        line,
        "ringwired --log-level=*:warning --no-telemetry --no-huge --no-shconf --no-pci --lcores=3 -m512 \
         --file-prefix=x --log-level=pmd:debug"
    );
}

#[test]
fn extra_arguments_can_choose_the_memory() {
    let no_huge = choose(&extra(&["--no-huge"]), &facts(4096)).unwrap();
    assert!(!no_huge.hugepages);
    assert_eq!(no_huge.argv.iter().filter(|arg| *arg == "--no-huge").count(), 1);
    assert!(no_huge.own_runtime_dir);

    let in_memory = choose(&extra(&["--in-memory"]), &facts(0)).unwrap();
    assert!(in_memory.hugepages);
    assert!(!in_memory.argv.iter().any(|arg| arg.starts_with("--file-prefix")));
}

#[test]
fn options_are_recognised_in_all_spellings() {
    assert!(is_option("-m", "-m"));
    assert!(is_option("-m512", "-m"));
    assert!(is_option("--lcores=1", "--lcores"));
    assert!(!is_option("--main-lcore=1", "-m"));
    assert!(!is_option("--no-huge-x", "--no-huge"));
}

#[test]
fn cpu_numbers_beyond_dpdks_are_left_out() {
    assert_eq!(cpu_list(&[3, 100_000]), Some("3".into()));
    assert_eq!(cpu_list(&[100_000]), None);
}
