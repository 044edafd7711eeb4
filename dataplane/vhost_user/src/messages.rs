//! The messages there are: one row each.

use std::ops::RangeInclusive;

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;

/// Bytes of a message's header: code, flags and payload length, 32 bits each.
pub(crate) const HEADER_LEN: usize = 12;
/// Longest payload we take; the `vhost` crate's limit too.
pub(crate) const MAX_PAYLOAD: usize = 4096;

// Those that are not left to the `vhost` crate: see `session/beside.rs`.
pub(crate) const SET_VRING_ENABLE: u32 = 18;
pub(crate) const SEND_RARP: u32 = 19;
pub(crate) const NET_SET_MTU: u32 = 20;
pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
pub(crate) const SET_STATUS: u32 = 39;
pub(crate) const GET_STATUS: u32 = 40;

/// One kind of message.
pub(crate) struct Message {
    pub code: u32,
    /// As in the specification, without VHOST_USER_.
    pub name: &'static str,
    /// What it must look like; `None`: not served.
    pub served: Option<Shape>,
    pub refusal: Refusal,
}

/// What a served message must look like before anything else looks at it.
pub(crate) struct Shape {
    /// Bytes of payload.
    pub payload: RangeInclusive<usize>,
    /// Attached file descriptors.
    pub fds: RangeInclusive<usize>,
    /// The protocol feature it belongs to.
    pub feature: Protocol,
}

/// How a message that is not carried out is answered.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// By a non-zero u64, if the frontend asked for an answer and REPLY_ACK was negotiated.
    Ack,
    /// As `Ack`, and the `vhost` crate has done so itself, even if it never called our handler.
    AckByCrate,
    /// The protocol fixes the reply, and it can say "no": this payload, without a file descriptor.
    Answer(&'static [u8]),
    /// The protocol fixes the reply, and it cannot say "no". A frontend that waits for it would wait for
    /// ever, or take an ack for data: the connection is closed, which every frontend understands.
    HangUp,
}

const ONE: [u8; 8] = 1u64.to_ne_bytes();
/// SET_DEVICE_STATE_FD: failed, and no file descriptor comes with the reply.
const FAILED_WITHOUT_FD: [u8; 8] = 0x101u64.to_ne_bytes();

const fn served(
    code: u32,
    name: &'static str,
    payload: RangeInclusive<usize>,
    fds: RangeInclusive<usize>,
    feature: Protocol,
    refusal: Refusal,
) -> Message {
    Message { code, name, served: Some(Shape { payload, fds, feature }), refusal }
}

const fn unserved(code: u32, name: &'static str, refusal: Refusal) -> Message {
    Message { code, name, served: None, refusal }
}

const ANY: Protocol = Protocol::empty();
const SLOTS: Protocol = Protocol::CONFIGURE_MEM_SLOTS;

use Refusal::{Ack, AckByCrate, Answer, HangUp};

/// SET_MEM_TABLE carries at most 8 regions of 32 bytes, each with its file descriptor.
static MESSAGES: [Message; 44] = [
    served(1, "GET_FEATURES", 0..=0, 0..=0, ANY, HangUp),
    served(2, "SET_FEATURES", 8..=8, 0..=0, ANY, Ack),
    served(3, "SET_OWNER", 0..=0, 0..=0, ANY, Ack),
    served(4, "RESET_OWNER", 0..=0, 0..=0, ANY, Ack),
    served(5, "SET_MEM_TABLE", 8..=8 + 8 * 32, 1..=8, ANY, AckByCrate),
    unserved(6, "SET_LOG_BASE", Ack),
    unserved(7, "SET_LOG_FD", Ack),
    served(8, "SET_VRING_NUM", 8..=8, 0..=0, ANY, Ack),
    served(9, "SET_VRING_ADDR", 40..=40, 0..=0, ANY, Ack),
    served(10, "SET_VRING_BASE", 8..=8, 0..=0, ANY, Ack),
    served(11, "GET_VRING_BASE", 8..=8, 0..=0, ANY, HangUp),
    served(12, "SET_VRING_KICK", 8..=8, 0..=1, ANY, Ack),
    served(13, "SET_VRING_CALL", 8..=8, 0..=1, ANY, Ack),
    served(14, "SET_VRING_ERR", 8..=8, 0..=1, ANY, Ack),
    served(15, "GET_PROTOCOL_FEATURES", 0..=0, 0..=0, ANY, HangUp),
    served(16, "SET_PROTOCOL_FEATURES", 8..=8, 0..=0, ANY, Ack),
    served(17, "GET_QUEUE_NUM", 0..=0, 0..=0, Protocol::MQ, HangUp),
    served(SET_VRING_ENABLE, "SET_VRING_ENABLE", 8..=8, 0..=0, ANY, Ack),
    served(SEND_RARP, "SEND_RARP", 8..=8, 0..=0, Protocol::RARP, Ack),
    served(NET_SET_MTU, "NET_SET_MTU", 8..=8, 0..=0, Protocol::MTU, Ack),
    served(SET_BACKEND_REQ_FD, "SET_BACKEND_REQ_FD", 0..=0, 1..=1, Protocol::BACKEND_REQ, Ack),
    unserved(22, "IOTLB_MSG", Ack),
    unserved(23, "SET_VRING_ENDIAN", Ack),
    // A reply of size 0 tells the frontend that there is no config space.
    served(24, "GET_CONFIG", 12..=MAX_PAYLOAD, 0..=0, Protocol::CONFIG, Answer(&[0; 12])),
    served(25, "SET_CONFIG", 12..=MAX_PAYLOAD, 0..=0, Protocol::CONFIG, AckByCrate),
    unserved(26, "CREATE_CRYPTO_SESSION", Ack),
    unserved(27, "CLOSE_CRYPTO_SESSION", Ack),
    unserved(28, "POSTCOPY_ADVISE", Answer(&[])),
    unserved(29, "POSTCOPY_LISTEN", Ack),
    unserved(30, "POSTCOPY_END", Ack),
    // An area of 0 bytes: QEMU takes that for "keeps no inflight record" and goes on.
    unserved(31, "GET_INFLIGHT_FD", Answer(&[0; 24])),
    unserved(32, "SET_INFLIGHT_FD", Ack),
    unserved(33, "GPU_SET_SOCKET", Ack),
    served(34, "RESET_DEVICE", 0..=0, 0..=0, Protocol::RESET_DEVICE, Ack),
    unserved(35, "VRING_KICK", Ack),
    served(36, "GET_MAX_MEM_SLOTS", 0..=0, 0..=0, SLOTS, HangUp),
    served(37, "ADD_MEM_REG", 40..=40, 1..=1, SLOTS, Ack),
    // "The back-end MAY accept messages with one file descriptor [and] MUST close it": old QEMU sends one.
    served(38, "REM_MEM_REG", 40..=40, 0..=1, SLOTS, Ack),
    served(SET_STATUS, "SET_STATUS", 8..=8, 0..=0, Protocol::STATUS, Ack),
    served(GET_STATUS, "GET_STATUS", 0..=0, 0..=0, Protocol::STATUS, HangUp),
    unserved(41, "GET_SHARED_OBJECT", Answer(&[])),
    unserved(42, "SET_DEVICE_STATE_FD", Answer(&FAILED_WITHOUT_FD)),
    unserved(43, "CHECK_DEVICE_STATE", Answer(&ONE)),
    unserved(44, "GET_SHMEM_CONFIG", Ack),
];

static UNKNOWN: Message = unserved(0, "an unknown message", Ack);

/// The row for `code`.
pub(crate) fn message(code: u32) -> &'static Message {
    MESSAGES.iter().find(|message| message.code == code).unwrap_or(&UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhost::vhost_user::message::FrontendReq;

    #[test]
    fn every_message_has_a_row_under_its_name_in_the_vhost_crate() {
        for code in 1..=44 {
            let known = FrontendReq::try_from(code).unwrap();
            assert_eq!(message(code).code, code);
            assert_eq!(message(code).name, format!("{known:?}"));
        }
        for code in [0, 45, u32::MAX] {
            assert!(message(code).served.is_none());
        }
    }

    #[test]
    fn nothing_is_served_whose_protocol_feature_is_not_offered() {
        for row in &MESSAGES {
            if let Some(shape) = &row.served {
                assert!(crate::features::PROTOCOL.contains(shape.feature), "{}", row.name);
            }
        }
    }
}
