//! Answers of a TPM: whatever comes over its device or socket.
#![no_main]

use formats::tpm::{HEADER_LEN, Public, RESPONSE_LIMIT, parse_counter, parse_done, response_len};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let index = 0x0180_5241;
    if let Ok(public) = Public::parse(data, index)
        && let Some(mark) = public.mark()
    {
        assert_eq!(mark.floor(mark.base), Some(mark.origin));
    }
    let _ = parse_counter(data);
    let _ = parse_done(data);
    if let Some(header) = data.first_chunk::<HEADER_LEN>()
        && let Ok(len) = response_len(header)
    {
        assert!((HEADER_LEN..=RESPONSE_LIMIT).contains(&len));
    }
});
