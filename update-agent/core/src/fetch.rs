//! What to fetch of an image: the cheapest frames that hold every chunk that is missing.
//!
//! An image can be fetched as any of several *coverings*: its fine encoding (a frame for each
//! chunk), its solid one (frames of many), deltas from an image this node has. A frame is fetched
//! whole, or in parts from its beginning on. [`choose`] mixes coverings freely, stretch by stretch, and finds the least number of
//! bytes: nearly all missing → solid frames, a few → fine ones, the base at hand → the delta.

/// Marks a chunk that need not be fetched.
const HELD: u8 = u8::MAX;

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

/// Frames that hold chunks of an image, ascending and disjoint; the beginnings of one frame stand
/// next to each other, the shortest first.
#[derive(Debug, Clone, Default)]
pub struct Covering {
    pieces: Vec<Piece>,
}

impl Covering {
    /// A covering of these pieces; `None` when they are not in order.
    pub fn new(pieces: Vec<Piece>) -> Option<Self> {
        let mut before: Option<Piece> = None;
        for piece in &pieces {
            let ordered = match before {
                Some(before) if before.first == piece.first => {
                    before.end < piece.end && before.len < piece.len
                }
                before => piece.first >= before.map_or(0, |before| before.end),
            };
            if !ordered || piece.end <= piece.first {
                return None;
            }
            before = Some(*piece);
        }
        Some(Covering { pieces })
    }

    /// The pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Which frames to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// For each covering, ascending, the indexes of the pieces to fetch; of a frame at most one.
    pub pieces: Vec<Vec<u32>>,
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
    let mut choice = Choice { pieces: vec![Vec::new(); coverings.len()], bytes: 0 };
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
        if let Some(pieces) = choice.pieces.get_mut(usize::from(by)) {
            // A frame that leaves out chunks may serve twice; the longer piece is fetched.
            let same = pieces.last().is_some_and(|later: &u32| {
                let later =
                    coverings.get(usize::from(by)).and_then(|c| c.pieces.get(*later as usize));
                later.is_some_and(|later| later.first == piece.first)
            });
            if !same {
                pieces.push(u32::try_from(at).unwrap_or(u32::MAX));
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
    for pieces in &mut choice.pieces {
        pieces.reverse();
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
        Covering::new(pieces.to_vec()).unwrap()
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
            assert_eq!(choice.pieces, [fine.to_vec(), solid.to_vec()], "{name}");
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
        assert!(Covering::new(vec![piece(0, 2, 1), piece(1, 3, 1)]).is_none(), "overlap");
        assert!(Covering::new(vec![piece(2, 2, 1)]).is_none(), "empty");
        assert!(Covering::new(vec![piece(2, 3, 1), piece(0, 1, 1)]).is_none(), "descending");
        assert!(
            Covering::new(vec![piece(0, 2, 1), piece(0, 3, 1)]).is_none(),
            "a part of no bytes"
        );
        assert!(Covering::new(vec![piece(0, 2, 1), piece(0, 3, 2), piece(3, 4, 1)]).is_some());
    }

    #[test]
    fn of_a_frame_in_parts_only_the_beginning_is_fetched() {
        let fine: Vec<Piece> = (0..6).map(|chunk| piece(chunk, chunk + 1, 10)).collect();
        let solid = [piece(0, 2, 12), piece(0, 4, 24), piece(0, 6, 36)];
        let both = [covering(&fine), covering(&solid)];
        type Row = (&'static str, &'static [u32], &'static [u32], &'static [u32], u64);
        // (name, missing, fine pieces, solid pieces, bytes)
        let rows: &[Row] = &[
            ("all", &[0, 1, 2, 3, 4, 5], &[], &[2], 36),
            ("what an interrupted run left", &[3, 4, 5], &[3, 4, 5], &[], 30),
            ("the first ones", &[0, 1, 2, 3], &[], &[1], 24),
            ("the first ones, and one", &[0, 1, 5], &[5], &[0], 22),
        ];
        for (name, missing, fine, solid, bytes) in rows {
            let choice = choose(6, &both, |chunk| missing.contains(&chunk), |_, _| true).unwrap();
            assert_eq!(choice.pieces, [fine.to_vec(), solid.to_vec()], "{name}");
            assert_eq!(choice.bytes, *bytes, "{name}");
        }
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
                coverings.push(Covering::new(pieces).unwrap());
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
                let there = choice.pieces.iter().enumerate().any(|(number, frames)| {
                    held(number, chunk)
                        && frames.iter().any(|frame| {
                            let piece = coverings[number].pieces[*frame as usize];
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
