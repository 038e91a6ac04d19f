//! The way through a proxy: `CONNECT`, and TLS with the origin inside it.

use registry_auth::{Origin, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::HttpError;

/// 8 KiB: the head of a proxy's answer.
const HEAD: usize = 8 << 10;

/// An error on the way to `origin` that is the proxy's.
pub(super) fn failed(proxy: &Proxy, origin: &Origin, why: &str) -> HttpError {
    HttpError::Unreachable {
        origin: origin.to_string(),
        why: format!("the proxy {proxy} {why}; `proxy` of the source or https_proxy names it"),
    }
}

/// Opens a tunnel to `origin` on a connection to the proxy.
pub(super) async fn tunnel(
    proxy: &Proxy,
    stream: &mut TcpStream,
    origin: &Origin,
) -> Result<(), HttpError> {
    let target = match origin.host() {
        host if host.contains(':') => format!("[{host}]:{}", origin.port()),
        host => format!("{host}:{}", origin.port()),
    };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(secret) = proxy.authorization() {
        request.push_str(&format!("Proxy-Authorization: {}\r\n", secret.expose()));
    }
    request.push_str("\r\n");
    let broken = |error: std::io::Error| failed(proxy, origin, &format!("breaks off: {error}"));
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::new();
    // One by one: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD {
            return Err(failed(proxy, origin, "sends an endless head"));
        }
        let mut byte = [0];
        if stream.read(&mut byte).await.map_err(broken)? == 0 {
            return Err(failed(proxy, origin, "ends the connection instead of answering"));
        }
        head.extend_from_slice(&byte);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().take(80).collect();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match status {
        Some("200") => Ok(()),
        Some("407") => {
            let why = "wants a user and password: http://USER:PASSWORD@HOST:PORT";
            Err(failed(proxy, origin, why))
        }
        _ => Err(failed(proxy, origin, &format!("answers {line:?}"))),
    }
}
