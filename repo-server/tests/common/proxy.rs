//! Somebody between a server and its bucket, who does what networks and services do.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What it does.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Cuts the connection on which that many bytes were sent up, once; then passes.
    CutOnce(usize),
    /// Answers that many requests with 500, then passes.
    Errors(usize),
    /// Takes no connection.
    Down,
    /// Changes this wherever it comes down.
    Flip(Vec<u8>),
}

struct State {
    mode: Mutex<Mode>,
    open: Mutex<Vec<TcpStream>>,
    errors: AtomicUsize,
    up: AtomicUsize,
}

/// It ends with the process.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    pub fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mode: Mutex::new(Mode::Pass),
            open: Mutex::default(),
            errors: AtomicUsize::new(0),
            up: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, to, &state));
            }
        });
        Proxy { address, state }
    }

    /// From now on, on new connections; those there are end.
    pub fn now(&self, mode: Mode) {
        if let Mode::Errors(n) = mode {
            self.state.errors.store(n, Ordering::SeqCst);
        }
        *self.state.mode.lock().unwrap() = mode;
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Bytes sent up so far.
    pub fn sent_up(&self) -> usize {
        self.state.up.load(Ordering::SeqCst)
    }
}

fn serve(client: &TcpStream, to: SocketAddr, state: &Arc<State>) {
    let mode = state.mode.lock().unwrap().clone();
    match mode {
        Mode::Down => return,
        Mode::Errors(_) => {
            let left =
                state.errors.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            if left.is_ok() {
                let mut buf = [0; 4096];
                let _ = (&*client).read(&mut buf);
                let text = "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = (&*client).write_all(text.as_bytes());
                return;
            }
        }
        _ => {}
    }
    let Ok(server) = TcpStream::connect(to) else { return };
    for stream in [client, &server] {
        state.open.lock().unwrap().push(stream.try_clone().unwrap());
    }
    let (down_from, down_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let flipped = match &mode {
        Mode::Flip(needle) => Some(needle.clone()),
        _ => None,
    };
    let down = std::thread::spawn(move || pass_down(&down_from, &down_to, flipped.as_deref()));
    let mut left = match mode {
        Mode::CutOnce(bytes) => bytes,
        _ => usize::MAX,
    };
    let mut buf = vec![0; 64 << 10];
    loop {
        let got = match (&*client).read(&mut buf) {
            Ok(0) | Err(_) => break,
            Ok(got) => got,
        };
        state.up.fetch_add(got, Ordering::SeqCst);
        if got >= left {
            *state.mode.lock().unwrap() = Mode::Pass;
            let _ = client.shutdown(Shutdown::Both);
            break;
        }
        left -= got;
        if (&server).write_all(&buf[..got]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = down.join();
}

fn pass_down(mut from: &TcpStream, mut to: &TcpStream, flip: Option<&[u8]>) {
    let mut buf = vec![0; 64 << 10];
    while let Ok(got) = from.read(&mut buf) {
        if got == 0 {
            break;
        }
        if let Some(needle) = flip
            && let Some(at) = buf[..got].windows(needle.len()).position(|it| it == needle)
        {
            buf[at] ^= 1;
        }
        if to.write_all(&buf[..got]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
