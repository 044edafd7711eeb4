//! What holds for rings of both formats: each test stands once, and runs for split and for packed.

mod hostile;
mod indirect;
mod normal;
mod notify;
mod offer;
mod receive;
mod same;

use crate::testing::*;
use crate::*;

/// Two tests of each function that is generic over the driver: `split::name` and `packed::name`. One that is not named
/// is dead code, and the compiler says so.
macro_rules! both_formats {
    ($format:ident: $($(#[$attr:meta])* $test:ident)*) => {
        mod $format {
            $(#[test] $(#[$attr])* fn $test() {
                super::$test::<crate::testing::$format::Driver>();
            })*
        }
    };
    ($($(#[$attr:meta])* $test:ident)*) => {
        both_formats! { split: $($(#[$attr])* $test)* }
        both_formats! { packed: $($(#[$attr])* $test)* }
    };
}
use both_formats;

/// Where a ring of each of `sizes` that the format takes is to be started so that it soon wraps: size, place.
fn near_the_wrap<D: RingDriver>(sizes: &[u16]) -> impl Iterator<Item = (u16, u64)> {
    let sizes = sizes.iter().copied().filter(|size| D::is_size(*size));
    sizes.map(|size| (size, D::wraps_at(size) - 10))
}
