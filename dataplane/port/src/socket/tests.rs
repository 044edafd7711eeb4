use super::check_name;

#[test]
fn an_interfaces_name_is_what_the_kernel_takes_for_one() {
    for name in ["eth0", "rw-tap0", "a", "fifteen-bytes-x", "ä", "if.100"] {
        assert!(check_name(name).is_ok(), "{name:?}");
    }
    for name in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "tap%d", "a:1", "a\0b", "a\nb"] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}
