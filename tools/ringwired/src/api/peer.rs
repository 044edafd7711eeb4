//! Who is at the other end of a connection (SO_PEERCRED, unix(7)), and what that one may do.
//!
//! Who may connect at all, and look, is a matter of the socket's file: its mode, owner and group. To change something
//! takes more where the mode lets everybody in: root, the user that ringwired runs as, the socket's owner, or a member
//! of its group.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use axum::Extension;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::net::UnixStream;

use super::answer::Refusal;
use crate::socket::ApiSocket;

/// Groups of a process, at first; the kernel says when there are more.
const GROUPS: usize = 32;

/// Whoever made a connection, as they were then.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    user: u32,
    /// Not known of a process in a namespace of its own.
    process: Option<i32>,
    may_change: bool,
}

impl Peer {
    /// The one that `stream`, a connection to `socket`, leads to.
    pub fn of(stream: &UnixStream, socket: &ApiSocket) -> io::Result<Peer> {
        let credentials = stream.peer_cred()?;
        let (user, (owner, group)) = (credentials.uid(), socket.owners());
        let trusted = [0, nix::unistd::geteuid().as_raw(), owner].contains(&user);
        // The group a process has is not always among those it has besides.
        let may_change = trusted || credentials.gid() == group || groups(stream)?.contains(&group);
        Ok(Peer { user, process: credentials.pid(), may_change })
    }

    /// Name of its program, as long as it runs.
    fn program(&self) -> String {
        let name = self.process.and_then(|id| std::fs::read_to_string(format!("/proc/{id}/comm")).ok());
        name.map_or_else(|| "?".to_owned(), |name| name.trim_end().to_owned())
    }
}

/// The supplementary groups of the process that made the connection.
#[allow(unsafe_code, reason = "no crate we have knows SO_PEERGROUPS")]
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; GROUPS];
    loop {
        let mut bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
        let fd = stream.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `bytes` bytes, which the vector has, and the number of bytes to `bytes`.
        let failed = unsafe {
            let (to, bytes) = (groups.as_mut_ptr().cast(), &raw mut bytes);
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, to, bytes) != 0
        };
        let count = bytes as usize / size_of::<u32>();
        let error = io::Error::last_os_error();
        match failed {
            false => {
                groups.truncate(count);
                return Ok(groups);
            }
            true if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                groups.resize(count, 0)
            }
            true => return Err(error),
        }
    }
}

/// Lets requests pass that change nothing, or come from somebody who may, and notes who has changed something.
pub async fn guard(Extension(peer): Extension<Peer>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let asked = format!("{} {}", request.method(), request.uri().path());
    let answer = match peer.may_change {
        true => next.run(request).await,
        false => {
            let text = "only root, the user of ringwired, and the owner and the group of its API socket may change \
                        something";
            Refusal(StatusCode::FORBIDDEN, text.to_owned()).into_response()
        }
    };
    let (uid, pid, status) = (peer.user, peer.process, answer.status());
    // /v1/ports/NAME, /v1/guests/NAME/backend, ...
    let of_a_port = |rest: &&str| rest.starts_with("ports/") || rest.starts_with("guests/");
    let rest = asked.split_once("/v1/").map(|(_, rest)| rest).filter(of_a_port);
    let port = rest.and_then(|rest| rest.split('/').nth(1));
    if status.is_success() {
        tracing::info!(port, uid, pid, program = peer.program(), "{asked}: {status}");
    } else if status == StatusCode::FORBIDDEN {
        tracing::warn!(port, uid, pid, program = peer.program(), "{asked}: {status}");
    }
    answer
}
