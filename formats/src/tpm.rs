//! The few TPM 2.0 commands that a monotonic counter needs, as bytes. Source: TCG TPM 2.0 Library,
//! parts 2 (structures) and 3 (commands), revision 1.59. All numbers are big-endian.
//!
//! ```text
//!  command   tag 2 · size 4 · code 4 · handles · [authorization size 4 · password session] · parameters
//!  response  tag 2 · size 4 · rc 4 · [parameter size 4] · parameters · [session]
//! ```
//!
//! The counter carries its own meaning. A TPM never lets a counter start below any counter it ever
//! had, so a fresh one may begin at 1 or at 4711; [`Mark`] says what that beginning stands for. It
//! lies in the index's policy digest, which no authorization can ever match and nobody can change
//! without deleting the index:
//!
//! | offset | bytes | [`Mark`] |
//! |---|---|---|
//! | 0 | 16 | `racklet floor 1` and a zero byte |
//! | 16 | 8 | `base`: the counter's value when it was made |
//! | 24 | 8 | `origin`: the security-version floor at that moment |
//!
//! The floor is `origin + counter - base`.

/// TPM_RH_OWNER: who may define indices.
const OWNER: u32 = 0x4000_0001;
/// TPM_RS_PW: a session that is a password.
const PASSWORD_SESSION: u32 = 0x4000_0009;
/// TPM_ALG_SHA256, of an index's name.
const SHA256: u16 = 0x000b;
/// TPM_ST_NO_SESSIONS and TPM_ST_SESSIONS.
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

/// A response is never longer here; the TPM's own limit is 4,096.
pub const RESPONSE_LIMIT: usize = 4096;
/// Bytes of a response's header.
pub const HEADER_LEN: usize = 10;
/// A counter has 8 bytes.
const COUNTER_LEN: u16 = 8;

/// NV indices that belong to the owner of a platform (TCG registry of reserved handles).
pub const OWNER_INDICES: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01bf_ffff;

/// TPMA_NV of the counter: type counter (1 in bits 4–7), owner and index password may write and
/// read, no lockout by wrong passwords.
pub const COUNTER_ATTRIBUTES: u32 = 1 << 4 | 1 << 1 | 1 << 2 | 1 << 17 | 1 << 18 | 1 << 25;
/// TPMA_NV_WRITTEN: the counter was incremented once. The TPM sets it.
const WRITTEN: u32 = 1 << 29;

const MAGIC: &[u8; 16] = b"racklet floor 1\0";

/// What the counter's beginning stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The counter's value when it was made.
    pub base: u64,
    /// The floor at that moment.
    pub origin: u64,
}

impl Mark {
    /// The floor of a counter's value; `None` for a value that the mark rules out.
    pub fn floor(self, counter: u64) -> Option<u64> {
        self.origin.checked_add(counter.checked_sub(self.base)?)
    }

    /// The policy digest that carries it.
    pub fn to_policy(self) -> [u8; 32] {
        let mut policy = [0; 32];
        policy[..16].copy_from_slice(MAGIC);
        policy[16..24].copy_from_slice(&self.base.to_be_bytes());
        policy[24..].copy_from_slice(&self.origin.to_be_bytes());
        policy
    }

    /// The mark in a policy digest; `None` when the index is not one of ours.
    pub fn of_policy(policy: &[u8]) -> Option<Self> {
        let rest = policy.strip_prefix(MAGIC)?;
        let (base, origin) = rest.split_first_chunk::<8>()?;
        let origin: &[u8; 8] = origin.try_into().ok()?;
        Some(Mark { base: u64::from_be_bytes(*base), origin: u64::from_be_bytes(*origin) })
    }
}

/// One command to a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// What an index is. Needs no authorization.
    ReadPublic {
        /// The index.
        index: u32,
    },
    /// Makes the counter.
    Define {
        /// The index.
        index: u32,
        /// What its beginning stands for.
        mark: Mark,
        /// The owner's password; empty on most machines.
        owner: &'a [u8],
    },
    /// Deletes an index.
    Undefine {
        /// The index.
        index: u32,
        /// The owner's password.
        owner: &'a [u8],
    },
    /// Counts up by one. The first one makes the counter readable.
    Increment {
        /// The index.
        index: u32,
    },
    /// The counter's value.
    Read {
        /// The index.
        index: u32,
    },
}

impl Command<'_> {
    /// The bytes to send.
    pub fn to_bytes(self) -> Vec<u8> {
        let (tag, code) = match self {
            Command::ReadPublic { .. } => (NO_SESSIONS, 0x0169),
            Command::Define { .. } => (SESSIONS, 0x012a),
            Command::Undefine { .. } => (SESSIONS, 0x0122),
            Command::Increment { .. } => (SESSIONS, 0x0134),
            Command::Read { .. } => (SESSIONS, 0x014e),
        };
        let mut body = Vec::new();
        match self {
            Command::ReadPublic { index } => put_u32(&mut body, index),
            Command::Define { index, mark, owner } => {
                put_u32(&mut body, OWNER);
                put_password(&mut body, owner);
                // The index's own password is empty: reading and counting up is no secret.
                put_u16(&mut body, 0);
                let mut public = Vec::new();
                put_u32(&mut public, index);
                put_u16(&mut public, SHA256);
                put_u32(&mut public, COUNTER_ATTRIBUTES);
                put_sized(&mut public, &mark.to_policy());
                put_u16(&mut public, COUNTER_LEN);
                put_sized(&mut body, &public);
            }
            Command::Undefine { index, owner } => {
                put_u32(&mut body, OWNER);
                put_u32(&mut body, index);
                put_password(&mut body, owner);
            }
            Command::Increment { index } => {
                put_u32(&mut body, index);
                put_u32(&mut body, index);
                put_password(&mut body, &[]);
            }
            Command::Read { index } => {
                put_u32(&mut body, index);
                put_u32(&mut body, index);
                put_password(&mut body, &[]);
                put_u16(&mut body, COUNTER_LEN);
                put_u16(&mut body, 0);
            }
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        put_u16(&mut bytes, tag);
        put_u32(&mut bytes, u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX));
        put_u32(&mut bytes, code);
        bytes.extend(body);
        bytes
    }
}

fn put_u16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend(value.to_be_bytes());
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_be_bytes());
}

/// A TPM2B: length and bytes. What is longer than a TPM2B can say is cut, and the TPM refuses it.
fn put_sized(bytes: &mut Vec<u8>, content: &[u8]) {
    let len = u16::try_from(content.len()).unwrap_or(u16::MAX);
    put_u16(bytes, len);
    bytes.extend(content.iter().take(usize::from(len)));
}

fn put_password(bytes: &mut Vec<u8>, password: &[u8]) {
    let mut session = Vec::new();
    put_u32(&mut session, PASSWORD_SESSION);
    put_u16(&mut session, 0); // no nonce
    session.push(0); // no attributes
    put_sized(&mut session, password);
    put_u32(bytes, u32::try_from(session.len()).unwrap_or(u32::MAX));
    bytes.extend(session);
}

/// What a TPM answered instead of success, or why its answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// The bytes are no response, or not to this command.
    #[error("the answer is no TPM response: {0}")]
    Form(&'static str),
    /// No such index: it was never made, or the TPM was cleared.
    #[error("the TPM has no such index")]
    NoIndex,
    /// The index exists already.
    #[error("the TPM has an index of that number already")]
    Defined,
    /// The counter was never incremented.
    #[error("the TPM's counter was never incremented")]
    Unwritten,
    /// The index is locked until the next start.
    #[error("the TPM's index is locked until the machine restarts")]
    Locked,
    /// The password is wrong, or the TPM is locked out after wrong ones.
    #[error("the TPM refuses the password (0x{0:03x})")]
    Auth(u32),
    /// The TPM's memory is full.
    #[error("the TPM has no room for another index")]
    Full,
    /// Not now: the same command later.
    #[error("the TPM is busy")]
    Busy,
    /// The firmware has not started the TPM.
    #[error("the TPM was not started by the firmware")]
    NotStarted,
    /// Any other response code.
    #[error("the TPM answers with response code 0x{0:03x}")]
    Code(u32),
}

impl TpmError {
    /// What a response code means for a counter. Format-one codes also say which handle or
    /// parameter they are about; that is masked out.
    fn of_code(code: u32) -> Self {
        let format_one = code & 0x80 != 0;
        let base = if format_one { code & 0xbf } else { code };
        match base {
            0x8b if format_one => TpmError::NoIndex,
            0x8e | 0xa2 if format_one => TpmError::Auth(code),
            0x149 | 0x921 => TpmError::Auth(code),
            0x14c => TpmError::Defined,
            0x14a => TpmError::Unwritten,
            0x148 => TpmError::Locked,
            0x14b => TpmError::Full,
            0x908 | 0x90a | 0x920 | 0x922 => TpmError::Busy,
            0x100 => TpmError::NotStarted,
            _ => TpmError::Code(code),
        }
    }
}

/// How long a response is, from its first ten bytes.
pub fn response_len(header: &[u8; HEADER_LEN]) -> Result<usize, TpmError> {
    let mut header = Reader(header);
    let _tag = header.u16()?;
    match usize::try_from(header.u32()?) {
        Ok(len) if (HEADER_LEN..=RESPONSE_LIMIT).contains(&len) => Ok(len),
        _ => Err(TpmError::Form("its length is out of bounds")),
    }
}

/// An index, as [`Command::ReadPublic`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public {
    /// Its attributes.
    attributes: u32,
    /// The mark, when it has one.
    mark: Option<Mark>,
}

impl Public {
    /// Parses the response to [`Command::ReadPublic`] for `index`.
    pub fn parse(response: &[u8], index: u32) -> Result<Self, TpmError> {
        let mut rest = Reader(parameters(response, NO_SESSIONS)?);
        let mut public = Reader(rest.sized()?);
        let _name = rest.sized()?;
        rest.end()?;
        if public.u32()? != index {
            return Err(TpmError::Form("it is about another index"));
        }
        let _name_algorithm = public.u16()?;
        let attributes = public.u32()?;
        let policy = public.sized()?;
        let len = public.u16()?;
        public.end()?;
        let mark = if len == COUNTER_LEN { Mark::of_policy(policy) } else { None };
        Ok(Public { attributes, mark })
    }

    /// The mark of a counter that is one of ours; `None` for an index of somebody else.
    pub fn mark(&self) -> Option<Mark> {
        // Whatever else is set: it must be a counter that nobody can write a value into.
        let ours = self.attributes & !WRITTEN == COUNTER_ATTRIBUTES;
        self.mark.filter(|_| ours)
    }

    /// Whether it has a value.
    pub fn is_written(&self) -> bool {
        self.attributes & WRITTEN != 0
    }
}

/// The counter's value in the response to [`Command::Read`].
pub fn parse_counter(response: &[u8]) -> Result<u64, TpmError> {
    let mut rest = Reader(parameters(response, SESSIONS)?);
    let bytes = rest.sized()?;
    rest.end()?;
    let bytes: [u8; 8] =
        bytes.try_into().map_err(|_| TpmError::Form("the counter has not eight bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Whether a command without parameters in its response succeeded.
pub fn parse_done(response: &[u8]) -> Result<(), TpmError> {
    Reader(parameters(response, SESSIONS)?).end()
}

/// The parameters of a successful response.
fn parameters(response: &[u8], tag: u16) -> Result<&[u8], TpmError> {
    let mut reader = Reader(response);
    let found = reader.u16()?;
    if usize::try_from(reader.u32()?).ok() != Some(response.len()) {
        return Err(TpmError::Form("its length is not what it says"));
    }
    match reader.u32()? {
        0 => {}
        code => return Err(TpmError::of_code(code)),
    }
    match found {
        _ if found != tag => Err(TpmError::Form("it has another tag")),
        NO_SESSIONS => Ok(reader.0),
        _ => {
            let len = reader.u32()?;
            let len = usize::try_from(len).map_err(|_| TpmError::Form("a length is too large"))?;
            reader.take(len)
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], TpmError> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or(TpmError::Form("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, TpmError> {
        let (taken, rest) =
            self.0.split_first_chunk::<2>().ok_or(TpmError::Form("it ends too early"))?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*taken))
    }

    fn u32(&mut self) -> Result<u32, TpmError> {
        let (taken, rest) =
            self.0.split_first_chunk::<4>().ok_or(TpmError::Form("it ends too early"))?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*taken))
    }

    fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn end(&self) -> Result<(), TpmError> {
        if self.0.is_empty() { Ok(()) } else { Err(TpmError::Form("bytes follow its end")) }
    }
}

#[cfg(test)]
mod tests;
