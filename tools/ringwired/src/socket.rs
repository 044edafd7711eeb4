//! The control API's unix socket as a thing on disk.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::config::ApiConfig;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// Why the API's socket cannot be had. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A live daemon has it.
    #[error("API socket {}: in use, another ringwired answers there", .0.display())]
    InUse(PathBuf),
    /// Something that is not ours to remove lies there.
    #[error("API socket {}: exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refuses.
    #[error("API socket {}: cannot {action}: {source}", .path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

/// A listening socket; its file is removed when it is dropped.
#[derive(Debug)]
pub struct ApiSocket {
    path: PathBuf,
    /// Device and inode: the file that we made, not one that has replaced it.
    identity: (u64, u64),
    /// Its user and group.
    owners: (u32, u32),
    listener: UnixListener,
}

impl ApiSocket {
    /// Makes the socket that `config` describes. Must be called within a tokio runtime.
    pub async fn bind(config: &ApiConfig) -> Result<ApiSocket, SocketError> {
        let path = &config.socket;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(failed(path, "create its directory"))?;
        }
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream().map_err(failed(path, "create it"))?;
        socket.bind(path).map_err(failed(path, "bind it"))?;
        let identity = identity(path).map_err(failed(path, "look at it"))?;
        // Until `listen` nobody can connect, so nobody gets in before mode and group are set.
        let prepared = restrict(path, config.mode, config.owner, config.group)
            .and_then(|owners| Ok((owners, socket.listen(BACKLOG).map_err(failed(path, "listen on it"))?)));
        match prepared {
            Ok((owners, listener)) => Ok(ApiSocket { path: path.clone(), identity, owners, listener }),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers of the user and the group that its file has.
    pub fn owners(&self) -> (u32, u32) {
        self.owners
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::System { path, action, source }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a socket that nobody listens on.
async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, "look at it")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::debug!(socket = %path.display(), "a stale API socket is replaced");
            std::fs::remove_file(path).map_err(failed(path, "remove the stale one"))
        }
        // EAGAIN: somebody listens, and is behind.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            Err(failed(path, "find out whether it is in use")(error))
        }
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

/// Who owns it then.
fn restrict(
    path: &Path,
    mode: u32,
    owner: Option<u32>,
    group: Option<u32>,
) -> Result<(u32, u32), SocketError> {
    if owner.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, owner, group).map_err(failed(path, "set its owner and group"))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(failed(path, "set its mode"))?;
    let metadata = std::fs::symlink_metadata(path).map_err(failed(path, "look at it"))?;
    Ok((metadata.uid(), metadata.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: PathBuf) -> ApiConfig {
        ApiConfig { socket: path, ..ApiConfig::default() }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/api.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file: it is stale");
        let socket = ApiSocket::bind(&config(path.clone())).await.unwrap();
        let refused = ApiSocket::bind(&config(path.clone())).await.unwrap_err();
        assert!(matches!(refused, SocketError::InUse(_)), "{refused}");
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn mode_and_group_are_set_and_a_missing_directory_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/api.sock");
        let (owner, group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let config =
            ApiConfig { mode: 0o640, owner: Some(owner), group: Some(group), ..config(path.clone()) };
        let socket = ApiSocket::bind(&config).await.unwrap();
        assert_eq!(socket.owners(), (owner, group));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        let refused = ApiSocket::bind(&config(path.clone())).await.unwrap_err();
        assert!(matches!(refused, SocketError::NotASocket(_)), "{refused}");
        std::fs::remove_file(&path).unwrap();
        let socket = ApiSocket::bind(&config(path.clone())).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        drop(socket);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
