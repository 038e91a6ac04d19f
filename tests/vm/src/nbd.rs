//! A drive whose power fails in the middle of a chosen write: a server of network block devices
//! (the NBD protocol, `doc/proto.md` of its project) on a Unix socket, for one machine at a time.
//!
//! A kill of QEMU at a random moment seldom hits an erase. Here every write passes by, in the order in
//! which the machine's kernel sent it; of the chosen one the first half arrives, and nothing after it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Bytes of one request; QEMU sends no more.
const REQUEST_LIMIT: u32 = 32 << 20;

/// What a write to a flash does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All its bytes are 0xff.
    Erase,
    /// Anything else.
    Program,
}

/// The write in whose middle the power fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct CutAt {
    pub(super) kind: Kind,
    /// So many of that kind pass before it.
    pub(super) after: u32,
    /// Only writes that begin in these bytes count.
    pub(super) first: u64,
    pub(super) end: u64,
}

/// A write that was cut: its first half is on the drive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Torn {
    pub(super) offset: u64,
    pub(super) len: u64,
}

struct Drive {
    file: File,
    len: u64,
    cut: Mutex<Option<CutAt>>,
    torn: Sender<Torn>,
}

/// A drive that is served until the program ends.
pub(super) struct Server {
    drive: Arc<Drive>,
    torn: Receiver<Torn>,
    socket: PathBuf,
}

impl Server {
    /// Serves a file at a socket.
    pub(super) fn start(file: &Path, socket: &Path) -> Result<Self> {
        let opened = File::options().read(true).write(true).open(file);
        let file = opened.with_context(|| format!("open {}", file.display()))?;
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("listen at {}", socket.display()))?;
        let (tell, torn) = channel();
        let len = file.metadata()?.len();
        let drive = Arc::new(Drive { file, len, cut: Mutex::default(), torn: tell });
        let served = Arc::clone(&drive);
        std::thread::spawn(move || {
            for machine in listener.incoming().flatten() {
                // A machine that is killed ends its connection; the next one comes.
                drop(served.serve(machine));
            }
        });
        Ok(Server { drive, torn, socket: socket.to_owned() })
    }

    /// For QEMU, the drive without its `if=` and `id=`.
    pub(super) fn option(&self) -> String {
        let path = self.socket.display();
        format!(
            "format=raw,cache=unsafe,file.driver=nbd,file.server.type=unix,file.server.path={path}"
        )
    }

    /// Arms the cut of the next machine.
    pub(super) fn cut_at(&self, cut: CutAt) {
        *self.drive.cut.lock().unwrap_or_else(PoisonError::into_inner) = Some(cut);
    }

    /// Waits until a write was torn.
    pub(super) fn torn(&self, limit: Duration) -> Result<Torn> {
        match self.torn.recv_timeout(limit) {
            Ok(torn) => Ok(torn),
            Err(RecvTimeoutError::Timeout) => bail!("no write was torn within {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the drive is gone"),
        }
    }
}

impl Drive {
    fn serve(&self, mut machine: UnixStream) -> Result<()> {
        self.greet(&mut machine)?;
        loop {
            let head: [u8; 28] = read(&mut machine)?;
            ensure!(head[..4] == 0x2560_9513_u32.to_be_bytes(), "no request");
            let command = u16::from_be_bytes([head[6], head[7]]);
            let handle = &head[8..16];
            let offset = u64::from_be_bytes(head[16..24].try_into()?);
            let len = u32::from_be_bytes(head[24..28].try_into()?);
            ensure!(len <= REQUEST_LIMIT, "a request of {len} bytes");
            let mut bytes = vec![0; len as usize];
            let mut good = offset.saturating_add(len.into()) <= self.len;
            match command {
                0 => good = good && self.file.read_exact_at(&mut bytes, offset).is_ok(),
                1 => {
                    machine.read_exact(&mut bytes)?;
                    if good && self.tears(&bytes, offset) {
                        let half = bytes.len() / 2;
                        self.file.write_all_at(&bytes[..half], offset)?;
                        self.torn.send(Torn { offset, len: len.into() })?;
                        // Without power there is no answer, and nothing else arrives.
                        drop(machine.read_to_end(&mut Vec::new()));
                        return Ok(());
                    }
                    good = good && self.file.write_all_at(&bytes, offset).is_ok();
                }
                2 => return Ok(()),
                // What arrived is kept by this computer: a flush has nothing to do.
                3 => {}
                _ => good = false,
            }
            machine.write_all(&0x6744_6698_u32.to_be_bytes())?;
            // EIO
            machine.write_all(&if good { 0_u32 } else { 5 }.to_be_bytes())?;
            machine.write_all(handle)?;
            if command == 0 && good {
                machine.write_all(&bytes)?;
            }
        }
    }

    /// The handshake, `fixed newstyle`: only what a client must be offered.
    fn greet(&self, machine: &mut UnixStream) -> Result<()> {
        const OPTION: u64 = 0x4948_4156_454f_5054;
        const REPLY: u64 = 0x0003_e889_0455_65a9;
        machine.write_all(b"NBDMAGIC")?;
        machine.write_all(&OPTION.to_be_bytes())?;
        // Fixed newstyle; no padding of zeros.
        machine.write_all(&3_u16.to_be_bytes())?;
        let _flags: [u8; 4] = read(machine)?;
        loop {
            let head: [u8; 16] = read(machine)?;
            ensure!(head[..8] == OPTION.to_be_bytes(), "no option");
            let option = u32::from_be_bytes(head[8..12].try_into()?);
            let len = u32::from_be_bytes(head[12..16].try_into()?);
            ensure!(len <= 4096, "an option of {len} bytes");
            machine.read_exact(&mut vec![0; len as usize])?;
            let mut reply = |kind: u32, data: &[u8]| -> Result<()> {
                machine.write_all(&REPLY.to_be_bytes())?;
                machine.write_all(&option.to_be_bytes())?;
                machine.write_all(&kind.to_be_bytes())?;
                machine.write_all(&(data.len() as u32).to_be_bytes())?;
                Ok(machine.write_all(data)?)
            };
            // NBD_OPT_GO
            if option != 7 {
                // NBD_REP_ERR_UNSUP
                reply(0x8000_0001, &[])?;
                continue;
            }
            // NBD_REP_INFO, NBD_INFO_EXPORT: length; it has flags, and takes flushes.
            let mut export = vec![0, 0];
            export.extend(self.len.to_be_bytes());
            export.extend(5_u16.to_be_bytes());
            reply(3, &export)?;
            return reply(1, &[]);
        }
    }

    /// Whether this is the write in whose middle the power fails.
    fn tears(&self, bytes: &[u8], offset: u64) -> bool {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = cut.as_mut() else { return false };
        let erased = bytes.iter().all(|byte| *byte == 0xff);
        let kind = if erased { Kind::Erase } else { Kind::Program };
        if kind != at.kind || !(at.first..at.end).contains(&offset) {
            return false;
        }
        if at.after > 0 {
            at.after -= 1;
            return false;
        }
        *cut = None;
        true
    }
}

fn read<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_chosen_write_arrives_and_nothing_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, socket) = (dir.path().join("drive"), dir.path().join("socket"));
        std::fs::write(&file, vec![7; 8192]).unwrap();
        let server = Server::start(&file, &socket).unwrap();
        server.cut_at(CutAt { kind: Kind::Erase, after: 1, first: 0, end: 8192 });
        let mut client = UnixStream::connect(&socket).unwrap();
        let _greeting: [u8; 18] = read(&mut client).unwrap();
        client.write_all(&[0, 0, 0, 3]).unwrap();
        client.write_all(b"IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0").unwrap();
        let _export: [u8; 20 + 12 + 20] = read(&mut client).unwrap();
        let mut write = |offset: u64, bytes: &[u8]| {
            client.write_all(&0x2560_9513_u32.to_be_bytes()).unwrap();
            client.write_all(&[0, 0, 0, 1]).unwrap();
            client.write_all(&[9; 8]).unwrap();
            client.write_all(&offset.to_be_bytes()).unwrap();
            client.write_all(&(bytes.len() as u32).to_be_bytes()).unwrap();
            client.write_all(bytes).unwrap();
        };
        write(0, &[0xff; 512]);
        write(512, &[1; 512]);
        write(1024, &[0xff; 512]);
        write(4096, &[2; 512]);
        let torn = server.torn(Duration::from_secs(10)).unwrap();
        assert_eq!((torn.offset, torn.len), (1024, 512));
        drop(client);
        let found = std::fs::read(&file).unwrap();
        let expected =
            [vec![0xff; 512], vec![1; 512], vec![0xff; 256], vec![7; 8192 - 1280]].concat();
        assert_eq!(found, expected);
    }
}
