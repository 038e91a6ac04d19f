//! What to fetch of an image: the cheapest frames that hold every chunk that is missing.
//!
//! An image can be fetched as any of several *coverings*: its fine encoding (a frame for each
//! chunk), its solid one (frames of many), deltas from an image this node has. A frame is fetched
//! whole, or in parts from its beginning on. [`choose`] mixes coverings freely, stretch by stretch, and finds the least number of
//! bytes: nearly all missing → solid frames, a few → fine ones, the base at hand → the delta.

use std::iter::Peekable;

use crate::indexes::Indexes;

/// Marks a chunk that need not be fetched.
const HELD: u8 = u8::MAX;

/// 8,192 chunks, some 512 MiB of image: what is held at once, 25 bytes a chunk. Where a stretch would
/// cut a frame of any covering, it ends behind it, so that stretches do not depend on each other.
const STRETCH: u32 = 8192;

/// A frame that can be fetched, or the beginning of one up to the end of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The first chunk of the frame.
    pub first: u32,
    /// One past the last chunk it holds. It may leave out chunks in between.
    pub end: u32,
    /// Its length in bytes, from the beginning of the frame on.
    pub len: u32,
}

impl Piece {
    /// Whether it may come after `before`: pieces are ascending and disjoint; the beginnings of one frame
    /// stand next to each other, the shortest first.
    fn follows(&self, before: Option<Piece>) -> bool {
        self.first < self.end
            && match before {
                Some(before) if before.first == self.first => {
                    before.end < self.end && before.len < self.len
                }
                before => self.first >= before.map_or(0, |before| before.end),
            }
    }
}

/// Which frames to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// For each covering the pieces to fetch by their index; of a frame at most one.
    pub pieces: Vec<Indexes>,
    /// Their bytes.
    pub bytes: u64,
}

/// The cheapest frames that hold every chunk below `chunks` for which `missing` is true. `None`
/// when one of these is in no covering.
///
/// A covering gives its pieces ascending and disjoint, the beginnings of one frame next to each
/// other, the shortest first. The first one that is not in order ends it.
///
/// `holds(covering, chunk)` says whether the frame of that covering that spans the chunk really
/// holds it. At most 254 coverings.
///
/// # Errors
///
/// The first of a covering.
pub fn choose<E>(
    chunks: u32,
    coverings: Vec<impl Iterator<Item = Result<Piece, E>>>,
    missing: impl Fn(u32) -> bool,
    holds: impl Fn(usize, u32) -> bool,
) -> Result<Option<Choice>, E> {
    choose_by(STRETCH, chunks, coverings, missing, holds)
}

fn choose_by<E>(
    stretch: u32,
    chunks: u32,
    coverings: Vec<impl Iterator<Item = Result<Piece, E>>>,
    missing: impl Fn(u32) -> bool,
    holds: impl Fn(usize, u32) -> bool,
) -> Result<Option<Choice>, E> {
    debug_assert!(coverings.len() < usize::from(HELD));
    let mut choice = Choice { pieces: vec![Indexes::default(); coverings.len()], bytes: 0 };
    let mut coverings: Vec<Covering<_>> = coverings.into_iter().map(Covering::new).collect();
    let mut start = 0;
    while start < chunks {
        coverings.iter_mut().for_each(Covering::forget);
        let mut end = start.saturating_add(stretch).min(chunks);
        loop {
            let before = end;
            for covering in &mut coverings {
                end = covering.gather(end)?;
            }
            if end == before {
                break;
            }
        }
        let end = end.min(chunks);
        let held: Vec<Stretch<'_>> = coverings.iter().map(Covering::stretch).collect();
        let Some(served) = serve(start..end, &held, &missing, &holds) else { return Ok(None) };
        follow(start..end, &held, &served, &missing, &holds, &mut choice);
        start = end;
    }
    Ok(Some(choice))
}

/// The pieces of a covering, of which those of one stretch are held.
struct Covering<I: Iterator> {
    rest: Peekable<I>,
    held: Vec<Piece>,
    /// Index of the first that is held.
    number: u32,
    last: Option<Piece>,
    /// One was not in order.
    over: bool,
}

/// Some neighbouring pieces, and the index of the first.
struct Stretch<'a> {
    pieces: &'a [Piece],
    number: u32,
}

impl<I: Iterator<Item = Result<Piece, E>>, E> Covering<I> {
    fn new(pieces: I) -> Self {
        Covering { rest: pieces.peekable(), held: Vec::new(), number: 0, last: None, over: false }
    }

    fn forget(&mut self) {
        self.number += u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        self.held.clear();
    }

    /// Holds all frames that begin before `end`; where the last one that any covering holds ends.
    fn gather(&mut self, mut end: u32) -> Result<u32, E> {
        let begins = |next: &I::Item| next.as_ref().map_or(true, |piece| piece.first < end);
        while let Some(next) = self.rest.next_if(begins) {
            let piece = next?;
            self.over |= !piece.follows(self.last);
            if self.over {
                break;
            }
            self.held.push(piece);
            self.last = Some(piece);
        }
        for piece in &self.held {
            end = end.max(piece.end);
        }
        Ok(end)
    }

    fn stretch(&self) -> Stretch<'_> {
        Stretch { pieces: &self.held, number: self.number }
    }
}

/// What serves each chunk of a stretch. The least cost of a prefix of it follows from those of shorter
/// ones: its last chunk is either not missing, or in a frame of some covering, which then serves every
/// chunk back to where that frame begins.
fn serve(
    chunks: std::ops::Range<u32>,
    coverings: &[Stretch<'_>],
    missing: &impl Fn(u32) -> bool,
    holds: &impl Fn(usize, u32) -> bool,
) -> Option<Vec<u8>> {
    let start = chunks.start;
    // Least cost of the chunks below each one, and what serves the chunk before.
    let mut cost: Vec<u64> = Vec::with_capacity(chunks.len() + 1);
    cost.push(0);
    let mut served: Vec<u8> = Vec::with_capacity(chunks.len());
    let mut at = vec![0usize; coverings.len()];
    // Where the present frame of each covering was last found to leave out a missing chunk.
    let mut gap = vec![start; coverings.len()];
    for chunk in chunks {
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
            let from = piece.first.max(*gap) - start;
            let sum = cost
                .get(from as usize)
                .map_or(u64::MAX, |before| before.saturating_add(u64::from(piece.len)));
            if best.is_none_or(|(least, _)| sum < least) {
                best = Some((sum, u8::try_from(number).unwrap_or(HELD)));
            }
        }
        let (sum, by) = best?;
        cost.push(sum);
        served.push(by);
    }
    Some(served)
}

/// Goes back from the last chunk of a stretch over what serves it.
fn follow(
    chunks: std::ops::Range<u32>,
    coverings: &[Stretch<'_>],
    served: &[u8],
    missing: &impl Fn(u32) -> bool,
    holds: &impl Fn(usize, u32) -> bool,
    choice: &mut Choice,
) {
    let start = chunks.start;
    // The first chunk of the frame that was picked last.
    let mut picked: Vec<Option<u32>> = vec![None; coverings.len()];
    let mut chunk = chunks.end;
    while chunk > start {
        let last = chunk - 1;
        let by = usize::from(served.get((last - start) as usize).copied().unwrap_or(HELD));
        let found = coverings.get(by).and_then(|covering| {
            let at = covering.pieces.partition_point(|piece| piece.end <= last);
            Some((covering.number + u32::try_from(at).ok()?, covering.pieces.get(at)?))
        });
        let Some((index, piece)) = found else {
            chunk = last;
            continue;
        };
        if let (Some(pieces), Some(frame)) = (choice.pieces.get_mut(by), picked.get_mut(by)) {
            // A frame that leaves out chunks may serve twice; the longer piece is fetched.
            if frame.replace(piece.first) != Some(piece.first) {
                pieces.add(index);
                choice.bytes += u64::from(piece.len);
            }
        }
        chunk = last;
        while chunk > piece.first {
            let previous = chunk - 1;
            if missing(previous) && !holds(by, previous) {
                break;
            }
            chunk = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(first: u32, end: u32, len: u32) -> Piece {
        Piece { first, end, len }
    }

    /// What is chosen, the same in stretches of any length.
    fn choose(
        chunks: u32,
        coverings: &[Vec<Piece>],
        missing: impl Fn(u32) -> bool,
        holds: impl Fn(usize, u32) -> bool,
    ) -> Option<(Vec<Vec<u32>>, u64)> {
        let by = |stretch| {
            let pieces = coverings.iter().map(|all| all.iter().copied().map(Ok));
            let found = choose_by::<()>(stretch, chunks, pieces.collect(), &missing, &holds);
            found.unwrap().map(|choice| {
                let indexes = |picked: &Indexes| (0..100).filter(|it| picked.has(*it)).collect();
                (choice.pieces.iter().map(indexes).collect::<Vec<Vec<u32>>>(), choice.bytes)
            })
        };
        let whole = by(STRETCH);
        assert!((1..5).all(|stretch| by(stretch) == whole), "{coverings:?}");
        whole
    }

    /// Ten chunks: alone for 10 each, by five for 30.
    fn both() -> [Vec<Piece>; 2] {
        let fine: Vec<Piece> = (0..10).map(|chunk| piece(chunk, chunk + 1, 10)).collect();
        [fine, vec![piece(0, 5, 30), piece(5, 10, 30)]]
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
            let found = choose(10, &both(), |chunk| missing.contains(&chunk), |_, _| true);
            assert_eq!(found, Some((vec![fine.to_vec(), solid.to_vec()], *bytes)), "{name}");
        }
    }

    #[test]
    fn what_no_frame_holds_cannot_be_fetched() {
        let only = [vec![piece(0, 3, 5), piece(4, 6, 5)]];
        assert_eq!(choose(6, &only, |chunk| chunk == 3, |_, _| true), None);
        assert_eq!(choose(6, &only, |chunk| chunk == 1, |_, chunk| chunk != 1), None);
        assert_eq!(choose(7, &only, |chunk| chunk == 6, |_, _| true), None, "past the last");
        assert!(choose(6, &only, |chunk| chunk != 3, |_, _| true).is_some());
        assert!(choose(0, &[], |_| true, |_, _| true).is_some());
    }

    #[test]
    fn coverings_are_ascending() {
        let rows: &[(&str, [Piece; 2], bool)] = &[
            ("overlap", [piece(0, 2, 1), piece(1, 3, 1)], false),
            ("empty", [piece(0, 2, 1), piece(2, 2, 1)], false),
            ("descending", [piece(2, 3, 1), piece(0, 1, 1)], false),
            ("a part of no bytes", [piece(0, 2, 1), piece(0, 3, 1)], false),
            ("a longer part", [piece(0, 2, 1), piece(0, 3, 2)], true),
            ("the next frame", [piece(0, 2, 1), piece(3, 4, 1)], true),
        ];
        for (name, [one, other], ordered) in rows {
            assert_eq!(other.follows(Some(*one)), *ordered, "{name}");
            // What is not in order does not count, nor what comes after it.
            let all = vec![*one, *other, piece(4, 5, 1)];
            let found = choose(5, &[all], |chunk| chunk == 4, |_, _| true);
            assert_eq!(found.is_some(), *ordered, "{name}");
        }
        let error = [Ok(piece(0, 1, 1)), Err("lost")].into_iter();
        assert_eq!(super::choose(2, vec![error], |_| true, |_, _| true), Err("lost"));
    }

    #[test]
    fn of_a_frame_in_parts_only_the_beginning_is_fetched() {
        let fine: Vec<Piece> = (0..6).map(|chunk| piece(chunk, chunk + 1, 10)).collect();
        let solid = [piece(0, 2, 12), piece(0, 4, 24), piece(0, 6, 36)];
        let both = [fine, solid.to_vec()];
        type Row = (&'static str, &'static [u32], &'static [u32], &'static [u32], u64);
        // (name, missing, fine pieces, solid pieces, bytes)
        let rows: &[Row] = &[
            ("all", &[0, 1, 2, 3, 4, 5], &[], &[2], 36),
            ("what an interrupted run left", &[3, 4, 5], &[3, 4, 5], &[], 30),
            ("the first ones", &[0, 1, 2, 3], &[], &[1], 24),
            ("the first ones, and one", &[0, 1, 5], &[5], &[0], 22),
        ];
        for (name, missing, fine, solid, bytes) in rows {
            let found = choose(6, &both, |chunk| missing.contains(&chunk), |_, _| true);
            assert_eq!(found, Some((vec![fine.to_vec(), solid.to_vec()], *bytes)), "{name}");
        }
    }

    /// Every choice of frames, tried: small images only.
    fn least(chunks: u32, coverings: &[Vec<Piece>], missing: u32, holds: &[u32]) -> Option<u64> {
        let all: Vec<(usize, Piece)> = coverings
            .iter()
            .enumerate()
            .flat_map(|(number, covering)| covering.iter().map(move |p| (number, *p)))
            .collect();
        (0u32..1 << all.len())
            .filter_map(|set| {
                let chosen = || all.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
                let covered = |chunk: u32| {
                    chosen().any(|(_, (number, piece))| {
                        (piece.first..piece.end).contains(&chunk)
                            && holds[*number] >> chunk & 1 == 1
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
                while next < chunks && pieces.len() < 6 {
                    let mut end = (next + 1 + draw(4)).min(chunks);
                    let mut len = 1 + draw(40);
                    let first = next;
                    pieces.push(piece(first, end, len));
                    while end < chunks && draw(3) == 0 {
                        (end, len) = ((end + 1 + draw(2)).min(chunks), len + 1 + draw(20));
                        pieces.push(piece(first, end, len));
                    }
                    next = end + draw(6) / 5;
                }
                coverings.push(pieces);
            }
            let missing = draw(1 << chunks);
            // Frames that hold all they span: what is found is the least.
            let all = vec![u32::MAX; coverings.len()];
            let is_missing = |chunk: u32| missing >> chunk & 1 == 1;
            let found = choose(chunks, &coverings, is_missing, |_, _| true);
            let best = least(chunks, &coverings, missing, &all);
            assert_eq!(found.as_ref().map(|(_, bytes)| *bytes), best, "{number}");
            solved += u32::from(found.is_some());
            // Frames with gaps: everything is there, for little more.
            let holds: Vec<u32> =
                coverings.iter().map(|_| draw(u32::MAX) | draw(u32::MAX)).collect();
            let held = |covering: usize, chunk: u32| holds[covering] >> chunk & 1 == 1;
            let found = choose(chunks, &coverings, is_missing, held);
            let best = least(chunks, &coverings, missing, &holds);
            assert_eq!(found.is_some(), best.is_some(), "{number}");
            let Some((pieces, _)) = found else { continue };
            for chunk in (0..chunks).filter(|chunk| is_missing(*chunk)) {
                let there = pieces.iter().enumerate().any(|(number, frames)| {
                    held(number, chunk)
                        && frames.iter().any(|frame| {
                            let piece = coverings[number][*frame as usize];
                            (piece.first..piece.end).contains(&chunk)
                        })
                });
                assert!(there, "{number}: chunk {chunk}");
            }
            whole += 1;
        }
        assert!(solved > 500 && whole > 500, "{solved} {whole}");
    }
}
