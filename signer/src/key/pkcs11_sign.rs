//! The second half of a signature, for keys that want a login between both (PKCS#11 §5.13.2, §5.6.7).
//!
//! `cryptoki` starts a signature and ends it in one call, which leaves no place for
//! `C_Login(CKU_CONTEXT_SPECIFIC)`. It starts one alone, too, for signatures in parts, but tokens
//! sign digests and ed25519 messages whole only. So `C_Sign` is called here.
#![expect(unsafe_code, reason = "one C function that the crate does not offer by itself")]

use std::path::Path;

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv};
use cryptoki::session::Session;
use cryptoki_sys::{CK_FUNCTION_LIST, CK_ULONG, Pkcs11};

/// 1 KiB: an RSA signature of 8192 bits; those of curves have 64 bytes.
const SIGNATURE_LIMIT: usize = 1024;

/// Ends a signature that [`Session::sign_init`] started. `module` is the session's library.
pub(super) fn sign(module: &Path, session: &Session, data: &[u8]) -> Result<Vec<u8>, Error> {
    // SAFETY: the library is loaded and initialised already, or there were no session; loading it
    // again gives the same one and runs nothing. It stays loaded while `library` lives.
    let library = unsafe { Pkcs11::new(module) }.map_err(Error::LibraryLoading)?;
    if library.C_GetFunctionList.is_err() {
        return Err(Error::MissingSymbol("C_GetFunctionList"));
    }
    let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
    // SAFETY: the function's one argument is where it puts a pointer.
    let found = unsafe { library.C_GetFunctionList(&raw mut list) };
    Rv::from(found).into_result(Function::GetFunctionList)?;
    // SAFETY: a list that was given out is static memory of the library (PKCS#11 §5.2).
    let function = unsafe { list.as_ref() }.and_then(|list| list.C_Sign);
    let function = function.ok_or(Error::MissingSymbol("C_Sign"))?;
    let mut signature = vec![0; SIGNATURE_LIMIT];
    let mut length = SIGNATURE_LIMIT as CK_ULONG;
    // SAFETY: both buffers are as long as said, and live; the input is not written to.
    let signed = unsafe {
        function(
            session.handle(),
            data.as_ptr().cast_mut(),
            data.len() as CK_ULONG,
            signature.as_mut_ptr(),
            &raw mut length,
        )
    };
    Rv::from(signed).into_result(Function::Sign)?;
    signature.truncate(usize::try_from(length).unwrap_or(0));
    Ok(signature)
}
