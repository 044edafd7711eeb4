mod garbage;
mod hostile;
mod indirect;
mod model;
mod normal;
mod notify;
mod overlap;
mod setup;

use crate::testing::packed::Driver;
use crate::{
    Call, Cursor, PackedRing, Reservation, RingConfig, SetupError, Taken, Token, Violation, Virtqueue,
};
