//! What a TPM answers: the errors that matter to a counter, and the parameters of a success.

use super::{
    Form, HEADER_LEN, Mark, NO_SESSIONS, READ_POLICY, RESPONSE_LIMIT, SESSIONS, VALUE_LEN,
};

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

/// An index, as [`Command::ReadPublic`](super::Command::ReadPublic) tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    attributes: u32,
    policy: Vec<u8>,
    len: u16,
}

impl Public {
    /// Parses the response to [`Command::ReadPublic`](super::Command::ReadPublic) for `index`.
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
        let policy = public.sized()?.to_vec();
        let len = public.u16()?;
        public.end()?;
        Ok(Public { attributes, policy, len })
    }

    /// The form of a counter that is one of ours; `None` for an index of somebody else.
    ///
    /// Whatever else is set, it must be a counter that nobody can write a value into.
    pub fn counter(&self) -> Option<Form> {
        if self.is(Form::GUARDED_ATTRIBUTES) && self.policy == READ_POLICY {
            return Some(Form::Guarded);
        }
        let mark = Mark::of_policy(&self.policy, Form::OPEN_MAGIC);
        mark.filter(|_| self.is(Form::OPEN_ATTRIBUTES)).map(Form::Open)
    }

    /// The mark of a guarded counter, when this is the index that carries one.
    pub fn mark(&self) -> Option<Mark> {
        let mark = Mark::of_policy(&self.policy, Form::MARK_MAGIC);
        mark.filter(|_| self.is(Form::MARK_ATTRIBUTES))
    }

    fn is(&self, attributes: u32) -> bool {
        self.attributes & !Form::STATE == attributes && self.len == VALUE_LEN
    }

    /// Whether it has a value.
    pub fn is_written(&self) -> bool {
        self.attributes & Form::WRITTEN != 0
    }

    /// Whether nothing counts in it before the machine restarts.
    pub fn is_locked(&self) -> bool {
        self.attributes & Form::LOCKED != 0
    }
}

/// The counter's value in the response to [`super::Command::Read`].
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

/// [`parse_done`], of a command that carries no authorization.
pub fn parse_bare(response: &[u8]) -> Result<(), TpmError> {
    Reader(parameters(response, NO_SESSIONS)?).end()
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

/// The session in the response to [`Command::StartReading`](super::Command::StartReading).
pub fn parse_session(response: &[u8]) -> Result<u32, TpmError> {
    let mut rest = Reader(parameters(response, NO_SESSIONS)?);
    let session = rest.u32()?;
    let _nonce = rest.sized()?;
    rest.end()?;
    Ok(session)
}
