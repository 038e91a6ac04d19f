//! Answers of a TPM: whatever comes over its device or socket.
#![no_main]

use formats::tpm::{
    Form, HEADER_LEN, Public, RESPONSE_LIMIT, parse_bare, parse_counter, parse_done, parse_session,
    response_len,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let index = 0x0180_5241;
    if let Ok(public) = Public::parse(data, index) {
        let beside = public.mark();
        let own = match public.counter() {
            Some(Form::Open(mark)) => Some(mark),
            Some(Form::Guarded) | None => None,
        };
        assert!(beside.is_none() || public.counter().is_none(), "an index is one thing");
        for mark in [beside, own].into_iter().flatten() {
            assert_eq!(mark.floor(mark.base), Some(mark.origin));
        }
    }
    let _ = parse_counter(data);
    let _ = parse_done(data);
    let _ = parse_bare(data);
    let _ = parse_session(data);
    if let Some(header) = data.first_chunk::<HEADER_LEN>()
        && let Ok(len) = response_len(header)
    {
        assert!((HEADER_LEN..=RESPONSE_LIMIT).contains(&len));
    }
});
