//! Whose instructions they are. A packet path is inlined into one large function, so callgrind's own list has one
//! line; the program's debug information still knows which source function an instruction came from.

use std::collections::HashMap;
use std::path::Path;

use addr2line::{Loader, demangle_auto};

use crate::Failure;
use crate::callgrind::{Cost, Profile};

/// What the standard library's source files have in their paths: its functions count for whoever calls them.
const STANDARD_LIBRARY: [&str; 3] = ["/library/core/src/", "/library/alloc/src/", "/library/std/src/"];

/// Names functions by address.
pub struct Names {
    loader: Loader,
}

impl Names {
    /// Of `program`, which must have debug information (line tables are enough).
    pub fn of(program: &Path) -> Result<Names, Failure> {
        let loader = Loader::new(program);
        Ok(Names { loader: loader.map_err(|error| Failure(format!("{}: {error}", program.display())))? })
    }

    /// Instructions by function, most first.
    pub fn functions(&self, profile: &Profile) -> Vec<(String, Cost)> {
        let mut functions: HashMap<String, Cost> = HashMap::new();
        for (address, cost) in &profile.addresses {
            *functions.entry(self.function(*address)).or_default() += *cost;
        }
        for ((object, function), cost) in &profile.functions {
            let library = Path::new(object).file_name().unwrap_or_default().to_string_lossy();
            let library = library.split(".so").next().unwrap_or_default();
            // A stripped library's inner functions have addresses for names: they are as good as one.
            let known = !function.starts_with("0x");
            let name = if known { format!("{library}: {function}") } else { library.to_owned() };
            *functions.entry(name).or_default() += *cost;
        }
        let mut functions: Vec<_> = functions.into_iter().filter(|(_, cost)| cost.instructions > 0).collect();
        functions.sort_by(|(name, cost), (other_name, other)| {
            other.instructions.cmp(&cost.instructions).then_with(|| name.cmp(other_name))
        });
        functions
    }

    /// The innermost function at `address` that is not the standard library's, with its source file.
    fn function(&self, address: u64) -> String {
        let mut last = None;
        if let Ok(mut frames) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let Some(name) = frame.function.and_then(|name| Some(name.demangle().ok()?.into_owned()))
                else {
                    continue;
                };
                let file = frame.location.and_then(|location| location.file).unwrap_or_default();
                last = Some(format!("{}: {}", short_file(file), short_name(&name)));
                if !STANDARD_LIBRARY.iter().any(|part| file.contains(part)) {
                    break;
                }
            }
        }
        last.or_else(|| self.symbol(address)).unwrap_or("?".into())
    }

    /// The symbol's name, with the source file: line tables do not name a function that nothing is inlined into.
    fn symbol(&self, address: u64) -> Option<String> {
        let name = demangle_auto(self.loader.find_symbol(address)?.into(), None);
        let location = self.loader.find_location(address).ok().flatten();
        Some(match location.and_then(|location| location.file) {
            Some(file) => format!("{}: {}", short_file(file), short_name(&name)),
            None => name.into_owned(),
        })
    }
}

/// `virtqueue/split.rs` of `/home/me/ringwire/dataplane/virtqueue/src/split.rs`.
fn short_file(file: &str) -> String {
    match file.rsplit_once("/src/") {
        Some((before, within)) => format!("{}/{within}", before.rsplit('/').next().unwrap_or_default()),
        None => file.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

/// A function's name without its module and type parameters: debug information has them or not.
fn short_name(name: &str) -> &str {
    let end = name.find("::<").or_else(|| name.find('<').filter(|at| *at > 0)).unwrap_or(name.len());
    let name = &name[..end];
    name.rsplit_once("::").map_or(name, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        assert_eq!(short_file("/r/dataplane/virtqueue/src/split/x.rs"), "virtqueue/split/x.rs");
        assert_eq!(short_file("/usr/include/dpdk/rte_mbuf.h"), "rte_mbuf.h");
        for name in ["f", "f<0>", "<T as U>::f", "<a::T>::f::<0, a::B>", "a::b::f::<T>"] {
            assert_eq!(short_name(name), "f", "{name}");
        }
    }

    #[test]
    #[inline(never)]
    fn this_function_is_found_in_this_program() {
        let names = Names::of(&std::env::current_exe().expect("a path")).expect("debug information");
        let here = this_function_is_found_in_this_program as fn() as usize as u64;
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let base = maps.split('-').next().and_then(|base| u64::from_str_radix(base, 16).ok());
        let name = names.function(here - base.expect("an address"));
        assert_eq!(name, "bench/functions.rs: this_function_is_found_in_this_program");
    }
}
