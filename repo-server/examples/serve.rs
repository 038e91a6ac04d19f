//! Serves a directory on a loopback port, read-only, until a line or the end comes on standard input
//! or a signal arrives.
//!
//! ```console
//! $ cargo run -p repo-server --example serve -- DIR
//! http://127.0.0.1:40123/v2/
//! ```

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

use repo_server::{Config, start};

fn main() -> Result<(), Box<dyn Error>> {
    let dir: PathBuf = std::env::args_os().nth(1).ok_or("usage: serve DIR")?.into();
    // The directory is an image layout: what `signer publish --repo oci:DIR` wrote, for instance.
    // Without tokens nobody may push; port 0 of 127.0.0.1 is a free one.
    let server = start(Config { read_only: true, ..Config::new(dir) })?;
    writeln!(std::io::stdout(), "{}/v2/", server.url())?;

    // Connections are served on the server's own threads. A signal ends the program as usual: the
    // server keeps nothing that a cut would harm.
    std::io::stdin().read_line(&mut String::new())?;

    // Requests under way are answered before it comes back.
    server.stop();
    Ok(())
}
