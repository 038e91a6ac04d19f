//! Reading a slot back: the only way to the proof that it holds what was signed.

use std::sync::{Mutex, PoisonError};

use formats::chunks::ChunkListError;
use formats::release::ComponentName;
use storage::block::{BlockDevice, DeviceError};
use update_core::image::{ReadBackError, ReadImage, Tally, ZeroCheck, check};

use super::StageError;
use super::span::{Part, default_threads, in_parallel, lock, spans};
use crate::list::List;
use crate::progress::Progress;

/// Reads a whole image from the device and compares every chunk with the signed list.
///
/// The device must have been flushed before. Its cached bytes are dropped first, so that what is
/// read is what the medium has. Bytes behind the image are neither read nor compared (case 130).
pub fn read_back(
    component: &ComponentName,
    target: &dyn BlockDevice,
    list: &List,
    progress: &dyn Progress,
) -> Result<ReadImage, StageError> {
    target.forget_cached(0, list.raw_size());
    progress.begin(&format!("read back {component}"), list.raw_size());
    let tally = Mutex::new(Tally::new(list));
    let digest = lock(&tally).list();
    let read = in_parallel(default_threads(), spans(list.chunks()), |buffer, span| {
        let span = span?;
        let mut zeros = None;
        span.read(target, buffer, |part| {
            let checked = match part {
                Part::Whole(chunk, bytes) => Some(check(digest, chunk, bytes)?),
                Part::Piece(chunk, bytes, last) => {
                    // Without a check there is no proof, and then the tally is incomplete.
                    zeros = zeros.take().or_else(|| ZeroCheck::new(digest, chunk));
                    if let Some(check) = &mut zeros {
                        check.piece(bytes)?;
                    }
                    let whole = if last { zeros.take() } else { None };
                    whole.map(ZeroCheck::finish).transpose()?
                }
            };
            if let Some(checked) = checked {
                lock(&tally).take(checked);
            }
            Ok::<(), Failure>(())
        })?;
        progress.advance(span.len());
        Ok(())
    });
    progress.end();
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let image = read.and_then(|()| Ok(tally.finish()?));
    image.map_err(|failure| match failure {
        Failure::List(source) => StageError::List { component: component.clone(), source },
        Failure::Device(source) => StageError::Device { component: component.clone(), source },
        Failure::Differs(source) => {
            StageError::ReadBack { component: component.clone(), device: target.describe(), source }
        }
    })
}

enum Failure {
    List(ChunkListError),
    Device(DeviceError),
    Differs(ReadBackError),
}

impl From<ChunkListError> for Failure {
    fn from(error: ChunkListError) -> Self {
        Failure::List(error)
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Failure::Device(error)
    }
}

impl From<ReadBackError> for Failure {
    fn from(error: ReadBackError) -> Self {
        Failure::Differs(error)
    }
}
