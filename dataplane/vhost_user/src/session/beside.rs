//! Messages that are carried out and answered here, beside the `vhost` crate.
//!
//! The crate has no arm for SEND_RARP, NET_SET_MTU, SET_STATUS and GET_STATUS. It refuses SET_VRING_ENABLE before
//! SET_FEATURES, when QEMU sends it first. And it sends on the socket of SET_BACKEND_REQ_FD with calls that block.

use super::{Session, lock};
use crate::messages::{
    GET_STATUS, Message, NET_SET_MTU, SEND_RARP, SET_BACKEND_REQ_FD, SET_STATUS, SET_VRING_ENABLE,
};
use crate::session::SessionError;
use crate::wire::Received;

/// Whether a message is served here.
pub(super) fn serves(code: u32) -> bool {
    matches!(code, SET_VRING_ENABLE | SEND_RARP | NET_SET_MTU | SET_BACKEND_REQ_FD | SET_STATUS | GET_STATUS)
}

impl Session<'_> {
    /// Carries out a message that looks as it should: its payload has the length it is to have.
    pub(super) fn serve_beside(
        &mut self,
        message: &Message,
        mut received: Received,
    ) -> Result<(), SessionError> {
        let header = received.header;
        if header.code == GET_STATUS {
            let status = lock(&self.device).status();
            return self.wire.reply(header, &u64::from(status).to_ne_bytes());
        }
        let (fd, frontend) = (received.take_fd(), self.wire.frontend());
        let payload: [u8; 8] = received.payload().try_into().unwrap_or_default();
        let number = u64::from_ne_bytes(payload);
        let [a, b, c, d, e, f, g, h] = payload;
        let done = lock(&self.device).carry_out(message.name, |device| match header.code {
            SET_VRING_ENABLE => {
                device.set_enabled(u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
            }
            SEND_RARP => device.send_rarp([a, b, c, d, e, f]),
            NET_SET_MTU => device.set_mtu(number),
            SET_STATUS => device.set_status(number),
            _ => device.set_channel(fd, frontend),
        });
        self.ack(header, done.is_err().into())
    }
}
