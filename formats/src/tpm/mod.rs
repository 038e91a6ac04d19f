//! The few TPM 2.0 commands that a monotonic counter needs, as bytes. Source: TCG TPM 2.0 Library,
//! parts 2 (structures) and 3 (commands), revision 1.59. All numbers are big-endian.
//!
//! ```text
//!  command   tag 2 · size 4 · code 4 · handles · [authorization size 4 · session] · parameters
//!  response  tag 2 · size 4 · rc 4 · [parameter size 4] · parameters · [session]
//! ```
//!
//! A TPM never lets a counter start below any counter it ever had, so a fresh one may begin at 1 or at
//! 4711; [`Mark`] says what that beginning stands for. The floor is `origin + counter - base`.
//!
//! | [`Form`] | the counter at `index` | its mark |
//! |---|---|---|
//! | [`Form::Guarded`] | counting and locking need the index's password, a secret of the agent; reading needs a policy that everybody satisfies ([`READ_POLICY`]) | the policy digest of a second index, `index + 1`, which is never written |
//! | [`Form::Open`], of older agents | whoever may open the TPM may count | its own policy digest |
//!
//! A policy digest that carries a mark is one that no authorization can ever match, and nobody can
//! change it without deleting the index, for which the owner's password is needed:
//!
//! | offset | bytes | [`Mark`] |
//! |---|---|---|
//! | 0 | 16 | `racklet floor 2` (open: `racklet floor 1`) and a zero byte |
//! | 16 | 8 | `base`: the counter's value when it was made |
//! | 24 | 8 | `origin`: the security-version floor at that moment |

mod response;

pub use response::{
    Public, TpmError, parse_bare, parse_counter, parse_done, parse_session, response_len,
};

/// TPM_RH_OWNER: who may define indices.
const OWNER: u32 = 0x4000_0001;
/// TPM_RH_NULL: no key and nothing to bind a session to.
const NULL: u32 = 0x4000_0007;
/// TPM_RS_PW: a session that is a password.
const PASSWORD_SESSION: u32 = 0x4000_0009;
/// TPM_ALG_SHA256, of an index's name and of a policy.
const SHA256: u16 = 0x000b;
/// TPM_ALG_NULL: a session that encrypts nothing.
const NO_ALGORITHM: u16 = 0x0010;
/// TPM_SE_POLICY.
const POLICY_SESSION: u8 = 0x01;
/// TPM_CC_NV_Read.
const NV_READ: u32 = 0x0000_014e;
/// TPM_ST_NO_SESSIONS and TPM_ST_SESSIONS.
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

/// A response is never longer here; the TPM's own limit is 4,096.
pub const RESPONSE_LIMIT: usize = 4096;
/// Bytes of a response's header.
pub const HEADER_LEN: usize = 10;
/// A counter has 8 bytes; the index with its mark is as long, and stays empty.
const VALUE_LEN: u16 = 8;
/// Bytes of the password of a guarded counter: as many as its digest, the most a TPM takes.
pub const SECRET_LEN: usize = 32;

/// NV indices that belong to the owner of a platform (TCG registry of reserved handles).
pub const OWNER_INDICES: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01bf_ffff;

/// The digest of the policy `TPM2_PolicyCommandCode(TPM_CC_NV_Read)`, which everybody satisfies and
/// which allows reading alone: SHA-256 of 32 zero bytes, `0000016c` and `0000014e` (part 3, 23.11).
pub const READ_POLICY: [u8; 32] = [
    0x47, 0xce, 0x30, 0x32, 0xd8, 0xba, 0xd1, 0xf3, 0x08, 0x9c, 0xb0, 0xc0, 0x90, 0x88, 0xde, 0x43,
    0x50, 0x14, 0x91, 0xd4, 0x60, 0x40, 0x2b, 0x90, 0xcd, 0x1b, 0x7f, 0xc0, 0xb6, 0x8c, 0xa9, 0x2f,
];

/// How a counter is kept, and its mark where the counter's index carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Counting needs a secret; after a lock nobody counts before the next start of the machine.
    Guarded,
    /// As agents before this form made it: everybody may count.
    Open(Mark),
}

impl Form {
    /// TPMA_NV (part 2, 13.4) of a guarded counter: type counter (1 in bits 4–7); the index's password
    /// may write and read, a policy may read; lockable until the next start; no lockout by wrong
    /// passwords. The owner may neither write nor read.
    const GUARDED_ATTRIBUTES: u32 = 1 << 4 | 1 << 2 | 1 << 18 | 1 << 19 | 1 << 14 | 1 << 25;
    /// Of an open one: owner and index password, which is empty, may write and read.
    const OPEN_ATTRIBUTES: u32 = 1 << 4 | 1 << 1 | 1 << 2 | 1 << 17 | 1 << 18 | 1 << 25;
    /// Of the index with a mark: an ordinary one; only a policy could write or read it, and the mark
    /// is a policy that nobody satisfies.
    const MARK_ATTRIBUTES: u32 = 1 << 3 | 1 << 19 | 1 << 25;
    /// TPMA_NV_WRITTEN and TPMA_NV_WRITELOCKED: set by the TPM.
    const WRITTEN: u32 = 1 << 29;
    const LOCKED: u32 = 1 << 11;
    const STATE: u32 = Form::WRITTEN | Form::LOCKED;
    const OPEN_MAGIC: &[u8; 16] = b"racklet floor 1\0";
    const MARK_MAGIC: &[u8; 16] = b"racklet floor 2\0";
}

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
    fn to_policy(self, magic: &[u8; 16]) -> [u8; 32] {
        let mut policy = [0; 32];
        policy[..16].copy_from_slice(magic);
        policy[16..24].copy_from_slice(&self.base.to_be_bytes());
        policy[24..].copy_from_slice(&self.origin.to_be_bytes());
        policy
    }

    /// The mark in a policy digest; `None` when it carries none of this magic.
    fn of_policy(policy: &[u8], magic: &[u8; 16]) -> Option<Self> {
        let rest = policy.strip_prefix(magic)?;
        let (base, origin) = rest.split_first_chunk::<8>()?;
        let origin: &[u8; 8] = origin.try_into().ok()?;
        Some(Mark { base: u64::from_be_bytes(*base), origin: u64::from_be_bytes(*origin) })
    }
}

/// What an index is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape<'a> {
    /// A guarded counter with its password, at most [`SECRET_LEN`] bytes.
    Counter(&'a [u8]),
    /// The index beside it that carries its mark.
    Mark(Mark),
    /// An open counter. The agent makes none any more; tests make what older agents left.
    Open(Mark),
}

impl Shape<'_> {
    fn attributes(self) -> u32 {
        match self {
            Shape::Counter(_) => Form::GUARDED_ATTRIBUTES,
            Shape::Mark(_) => Form::MARK_ATTRIBUTES,
            Shape::Open(_) => Form::OPEN_ATTRIBUTES,
        }
    }

    fn policy(self) -> [u8; 32] {
        match self {
            Shape::Counter(_) => READ_POLICY,
            Shape::Mark(mark) => mark.to_policy(Form::MARK_MAGIC),
            Shape::Open(mark) => mark.to_policy(Form::OPEN_MAGIC),
        }
    }

    fn secret(&self) -> &[u8] {
        match self {
            Shape::Counter(secret) => secret,
            Shape::Mark(_) | Shape::Open(_) => &[],
        }
    }
}

/// One command to a TPM. An empty `secret` is that of an open counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// What an index is. Needs no authorization.
    ReadPublic {
        /// The index.
        index: u32,
    },
    /// Makes an index.
    Define {
        /// The index.
        index: u32,
        /// What it shall be.
        shape: Shape<'a>,
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
        /// Its password.
        secret: &'a [u8],
    },
    /// The counter's value, for who knows its password.
    Read {
        /// The index.
        index: u32,
        /// Its password.
        secret: &'a [u8],
    },
    /// Nobody counts in a guarded counter before the machine restarts.
    Lock {
        /// The index.
        index: u32,
        /// Its password.
        secret: &'a [u8],
    },
    /// Begins a policy session; [`parse_session`] gives its handle.
    StartReading,
    /// Makes a session one that may read and do nothing else.
    AllowReading {
        /// The session.
        session: u32,
    },
    /// The value of a guarded counter, for everybody; ends the session when it succeeds.
    ReadBy {
        /// The session.
        session: u32,
        /// The index.
        index: u32,
    },
    /// Ends a session.
    End {
        /// The session.
        session: u32,
    },
}

impl Command<'_> {
    /// The bytes to send.
    pub fn to_bytes(self) -> Vec<u8> {
        let body = self.body();
        let (tag, code) = self.code();
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        put_u16(&mut bytes, tag);
        put_u32(&mut bytes, u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX));
        put_u32(&mut bytes, code);
        bytes.extend(body);
        bytes
    }

    fn code(self) -> (u16, u32) {
        match self {
            Command::ReadPublic { .. } => (NO_SESSIONS, 0x0169),
            Command::Define { .. } => (SESSIONS, 0x012a),
            Command::Undefine { .. } => (SESSIONS, 0x0122),
            Command::Increment { .. } => (SESSIONS, 0x0134),
            Command::Read { .. } | Command::ReadBy { .. } => (SESSIONS, NV_READ),
            Command::Lock { .. } => (SESSIONS, 0x0138),
            Command::StartReading => (NO_SESSIONS, 0x0176),
            Command::AllowReading { .. } => (NO_SESSIONS, 0x016c),
            Command::End { .. } => (NO_SESSIONS, 0x0165),
        }
    }

    /// Handles, authorization and parameters.
    fn body(self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Command::ReadPublic { index } => put_u32(&mut body, index),
            Command::Define { index, shape, owner } => {
                put_u32(&mut body, OWNER);
                put_session(&mut body, PASSWORD_SESSION, owner);
                put_sized(&mut body, shape.secret());
                let mut public = Vec::new();
                put_u32(&mut public, index);
                put_u16(&mut public, SHA256);
                put_u32(&mut public, shape.attributes());
                put_sized(&mut public, &shape.policy());
                put_u16(&mut public, VALUE_LEN);
                put_sized(&mut body, &public);
            }
            Command::Undefine { index, owner } => {
                put_u32(&mut body, OWNER);
                put_u32(&mut body, index);
                put_session(&mut body, PASSWORD_SESSION, owner);
            }
            Command::Increment { index, secret } | Command::Lock { index, secret } => {
                put_use(&mut body, index, PASSWORD_SESSION, secret);
            }
            Command::Read { index, secret } => {
                put_use(&mut body, index, PASSWORD_SESSION, secret);
                put_span(&mut body);
            }
            Command::ReadBy { session, index } => {
                put_use(&mut body, index, session, &[]);
                put_span(&mut body);
            }
            Command::StartReading => {
                put_u32(&mut body, NULL); // no key
                put_u32(&mut body, NULL); // bound to nothing
                put_sized(&mut body, &[0; 16]); // a nonce: nothing is authenticated by it
                put_sized(&mut body, &[]); // no salt
                body.push(POLICY_SESSION);
                put_u16(&mut body, NO_ALGORITHM);
                put_u16(&mut body, SHA256);
            }
            Command::AllowReading { session } => {
                put_u32(&mut body, session);
                put_u32(&mut body, NV_READ);
            }
            Command::End { session } => put_u32(&mut body, session),
        }
        body
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

/// An index that authorizes its own use.
fn put_use(bytes: &mut Vec<u8>, index: u32, session: u32, password: &[u8]) {
    put_u32(bytes, index);
    put_u32(bytes, index);
    put_session(bytes, session, password);
}

/// All of a value, from its beginning.
fn put_span(bytes: &mut Vec<u8>) {
    put_u16(bytes, VALUE_LEN);
    put_u16(bytes, 0);
}

fn put_session(bytes: &mut Vec<u8>, session: u32, password: &[u8]) {
    let mut area = Vec::new();
    put_u32(&mut area, session);
    put_u16(&mut area, 0); // no nonce
    area.push(0); // no attributes: a policy session ends with the command
    put_sized(&mut area, password);
    put_u32(bytes, u32::try_from(area.len()).unwrap_or(u32::MAX));
    bytes.extend(area);
}

#[cfg(test)]
mod tests;
