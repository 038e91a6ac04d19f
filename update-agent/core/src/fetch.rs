//! What to fetch of an image: the cheapest frames that hold every chunk that is missing.
//!
//! An image can be fetched as any of several *coverings*: its fine encoding (a frame for each
//! chunk), its solid one (frames of many), deltas from an image this node has. A frame is fetched
//! whole. [`choose`] mixes coverings freely, stretch by stretch, and finds the least number of
//! bytes: nearly all missing → solid frames, a few → fine ones, the base at hand → the delta.

use std::ops::Range;

/// Marks a chunk that need not be fetched.
const HELD: u8 = u8::MAX;

/// A frame that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The first chunk it holds, and one past the last.
    pub first: u32,
    /// One past the last chunk it holds. It may leave out chunks in between.
    pub end: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl Piece {
    /// The chunks between its first and its last.
    pub fn chunks(&self) -> Range<u32> {
        self.first..self.end
    }
}

/// Frames that hold chunks of an image, ascending and disjoint.
#[derive(Debug, Clone, Default)]
pub struct Covering {
    pieces: Vec<Piece>,
    /// What a request for a single frame of it costs beside its bytes.
    overhead: u32,
}

impl Covering {
    /// A covering of these frames; `None` when they are not ascending and disjoint.
    ///
    /// `overhead` is what each frame costs beside its bytes, for instance the prefix that must be
    /// read for a frame of a delta.
    pub fn new(pieces: Vec<Piece>, overhead: u32) -> Option<Self> {
        let mut next = 0;
        for piece in &pieces {
            if piece.first < next || piece.end <= piece.first {
                return None;
            }
            next = piece.end;
        }
        Some(Covering { pieces, overhead })
    }

    /// The frames.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Which frames to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// For each covering, ascending, the indexes of the frames to fetch.
    pub frames: Vec<Vec<u32>>,
    /// Their bytes.
    pub bytes: u64,
}

/// The cheapest frames that hold every chunk below `chunks` for which `missing` is true. `None`
/// when one of these is in no covering.
///
/// `holds(covering, chunk)` says whether the frame of that covering that spans the chunk really
/// holds it. At most 254 coverings.
///
/// The least cost of a prefix of the image follows from those of shorter ones: its last chunk is
/// either not missing, or in a frame of some covering, which then serves every chunk back to where
/// that frame begins.
pub fn choose(
    chunks: u32,
    coverings: &[Covering],
    missing: impl Fn(u32) -> bool,
    holds: impl Fn(usize, u32) -> bool,
) -> Option<Choice> {
    debug_assert!(coverings.len() < usize::from(HELD));
    // Least cost of the chunks below each one, and what serves the chunk before.
    let mut cost: Vec<u64> = vec![0];
    let mut served: Vec<u8> = Vec::with_capacity(chunks as usize);
    let mut at = vec![0usize; coverings.len()];
    // Where the present frame of each covering was last found to leave out a missing chunk.
    let mut gap = vec![0u32; coverings.len()];
    for chunk in 0..chunks {
        let before = *cost.last().unwrap_or(&0);
        if !missing(chunk) {
            cost.push(before);
            served.push(HELD);
            continue;
        }
        let mut best: Option<(u64, u8)> = None;
        for (number, covering) in coverings.iter().enumerate() {
            let (Some(at), Some(gap)) = (at.get_mut(number), gap.get_mut(number)) else { continue };
            while covering.pieces.get(*at).is_some_and(|piece| piece.end <= chunk) {
                *at += 1;
            }
            let Some(piece) = covering.pieces.get(*at).filter(|piece| piece.first <= chunk) else {
                *gap = chunk + 1;
                continue;
            };
            if !holds(number, chunk) {
                *gap = chunk + 1;
                continue;
            }
            // A frame that leaves out a missing chunk serves only what comes after that.
            let from = piece.first.max(*gap);
            let price = u64::from(piece.len) + u64::from(covering.overhead);
            let sum = cost.get(from as usize).copied().unwrap_or(u64::MAX).saturating_add(price);
            if best.is_none_or(|(least, _)| sum < least) {
                best = Some((sum, u8::try_from(number).unwrap_or(HELD)));
            }
        }
        let (sum, by) = best?;
        cost.push(sum);
        served.push(by);
    }
    Some(follow(chunks, coverings, &served, &missing, &holds))
}

/// Goes back from the last chunk over what serves it.
fn follow(
    chunks: u32,
    coverings: &[Covering],
    served: &[u8],
    missing: &impl Fn(u32) -> bool,
    holds: &impl Fn(usize, u32) -> bool,
) -> Choice {
    let mut choice = Choice { frames: vec![Vec::new(); coverings.len()], bytes: 0 };
    let mut chunk = chunks;
    while let Some(last) = chunk.checked_sub(1) {
        let by = served.get(last as usize).copied().unwrap_or(HELD);
        let found = coverings.get(usize::from(by)).and_then(|covering| {
            let at = covering.pieces.partition_point(|piece| piece.end <= last);
            Some((at, covering.pieces.get(at)?))
        });
        let Some((at, piece)) = found else {
            chunk = last;
            continue;
        };
        if let Some(frames) = choice.frames.get_mut(usize::from(by)) {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            // A frame that leaves out chunks may serve twice; it is fetched once.
            if frames.last() != Some(&at) {
                frames.push(at);
                choice.bytes += u64::from(piece.len);
            }
        }
        chunk = last;
        while chunk > piece.first {
            let previous = chunk - 1;
            if missing(previous) && !holds(usize::from(by), previous) {
                break;
            }
            chunk = previous;
        }
    }
    for frames in &mut choice.frames {
        frames.reverse();
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(first: u32, end: u32, len: u32) -> Piece {
        Piece { first, end, len }
    }

    fn covering(pieces: &[Piece]) -> Covering {
        Covering::new(pieces.to_vec(), 0).unwrap()
    }

    /// Ten chunks: alone for 10 each, by five for 30.
    fn both() -> [Covering; 2] {
        let fine: Vec<Piece> = (0..10).map(|chunk| piece(chunk, chunk + 1, 10)).collect();
        [covering(&fine), covering(&[piece(0, 5, 30), piece(5, 10, 30)])]
    }

    #[test]
    fn the_cheapest_mixture_is_chosen() {
        type Row = (&'static str, &'static [u32], &'static [u32], &'static [u32], u64);
        // (name, missing, fine frames, solid frames, bytes)
        let rows: &[Row] = &[
            ("nothing", &[], &[], &[], 0),
            ("one", &[3], &[3], &[], 10),
            ("all", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[], &[0, 1], 60),
            ("half", &[0, 1, 2, 3, 4], &[], &[0], 30),
            ("most of one half, one of the other", &[0, 1, 3, 4, 9], &[9], &[0], 40),
            ("as dear either way", &[5, 6, 7], &[5, 6, 7], &[], 30),
        ];
        for (name, missing, fine, solid, bytes) in rows {
            let choice =
                choose(10, &both(), |chunk| missing.contains(&chunk), |_, _| true).unwrap();
            assert_eq!(choice.frames, [fine.to_vec(), solid.to_vec()], "{name}");
            assert_eq!(choice.bytes, *bytes, "{name}");
        }
    }

    #[test]
    fn what_no_frame_holds_cannot_be_fetched() {
        let only = [covering(&[piece(0, 3, 5), piece(4, 6, 5)])];
        assert_eq!(choose(6, &only, |chunk| chunk == 3, |_, _| true), None);
        assert_eq!(choose(6, &only, |chunk| chunk == 1, |_, chunk| chunk != 1), None);
        assert_eq!(choose(7, &only, |chunk| chunk == 6, |_, _| true), None, "past the last");
        assert!(choose(6, &only, |chunk| chunk != 3, |_, _| true).is_some());
        assert!(choose(0, &[], |_| true, |_, _| true).is_some());
    }

    #[test]
    fn coverings_are_ascending() {
        assert!(Covering::new(vec![piece(0, 2, 1), piece(1, 3, 1)], 0).is_none(), "overlap");
        assert!(Covering::new(vec![piece(2, 2, 1)], 0).is_none(), "empty");
        assert!(Covering::new(vec![piece(2, 3, 1), piece(0, 1, 1)], 0).is_none(), "descending");
    }

    #[test]
    fn overhead_decides_between_equals() {
        let dear = Covering::new(vec![piece(0, 1, 9)], 5).unwrap();
        let plain = covering(&[piece(0, 1, 10)]);
        let choice = choose(1, &[dear, plain], |_| true, |_, _| true).unwrap();
        assert_eq!(choice.frames, [vec![], vec![0]]);
        assert_eq!(choice.bytes, 10);
    }

    /// Every choice of frames, tried: small images only.
    fn least(chunks: u32, coverings: &[Covering], missing: u32, holds: &[u32]) -> Option<u64> {
        let all: Vec<(usize, Piece)> = coverings
            .iter()
            .enumerate()
            .flat_map(|(number, covering)| covering.pieces.iter().map(move |p| (number, *p)))
            .collect();
        (0u32..1 << all.len())
            .filter_map(|set| {
                let chosen = || all.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
                let covered = |chunk: u32| {
                    chosen().any(|(_, (number, piece))| {
                        piece.chunks().contains(&chunk) && holds[*number] >> chunk & 1 == 1
                    })
                };
                let whole = (0..chunks).all(|chunk| missing >> chunk & 1 == 0 || covered(chunk));
                whole.then(|| chosen().map(|(_, (_, piece))| u64::from(piece.len)).sum())
            })
            .min()
    }

    #[test]
    fn no_other_choice_is_cheaper() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u32::try_from(state >> 33).unwrap() % below
        };
        let (mut solved, mut whole) = (0, 0);
        for number in 0..2000 {
            let chunks = 1 + draw(8);
            let mut coverings = Vec::new();
            for _ in 0..1 + draw(2) {
                let (mut pieces, mut next) = (Vec::new(), draw(2));
                while next < chunks {
                    let end = (next + 1 + draw(4)).min(chunks);
                    pieces.push(piece(next, end, 1 + draw(40)));
                    next = end + draw(6) / 5;
                }
                coverings.push(Covering::new(pieces, 0).unwrap());
            }
            let missing = draw(1 << chunks);
            // Frames that hold all they span: what is found is the least.
            let all = vec![u32::MAX; coverings.len()];
            let is_missing = |chunk: u32| missing >> chunk & 1 == 1;
            let found = choose(chunks, &coverings, is_missing, |_, _| true);
            let best = least(chunks, &coverings, missing, &all);
            assert_eq!(found.as_ref().map(|choice| choice.bytes), best, "{number}");
            solved += u32::from(found.is_some());
            // Frames with gaps: everything is there, for little more.
            let holds: Vec<u32> =
                coverings.iter().map(|_| draw(u32::MAX) | draw(u32::MAX)).collect();
            let held = |covering: usize, chunk: u32| holds[covering] >> chunk & 1 == 1;
            let found = choose(chunks, &coverings, is_missing, held);
            let best = least(chunks, &coverings, missing, &holds);
            assert_eq!(found.is_some(), best.is_some(), "{number}");
            let Some(choice) = found else { continue };
            for chunk in (0..chunks).filter(|chunk| is_missing(*chunk)) {
                let there = choice.frames.iter().enumerate().any(|(number, frames)| {
                    held(number, chunk)
                        && frames.iter().any(|frame| {
                            coverings[number].pieces[*frame as usize].chunks().contains(&chunk)
                        })
                });
                assert!(there, "{number}: chunk {chunk}");
            }
            whole += 1;
        }
        assert!(solved > 500 && whole > 500, "{solved} {whole}");
    }
}
