//! librsync's signatures and deltas by FORMAT.md 5 and 6: an independent encoder, and a decoder to check it.

use std::collections::HashMap;

use super::tree::Dice;

/// One command of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// `len` bytes of the delta stream itself from offset `at`.
    Literal { at: usize, len: usize },
    /// `len` bytes of the previous content from offset `from`.
    Copy { from: usize, len: usize },
}

/// MD4 (RFC 1320).
pub(crate) fn md4(data: &[u8]) -> [u8; 16] {
    let mut state = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let mut padded = data.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(data.len() as u64 * 8).to_le_bytes());
    for chunk in padded.chunks_exact(64) {
        let x: Vec<u32> = chunk.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        let [mut a, mut b, mut c, mut d] = state;
        let order = |round: usize, i: usize| match round {
            0 => i,
            1 => (i % 4) * 4 + i / 4,
            _ => [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15][i],
        };
        for round in 0..3 {
            let (shifts, constant) =
                [([3, 7, 11, 19], 0u32), ([3, 5, 9, 13], 0x5a82_7999), ([3, 9, 11, 15], 0x6ed9_eba1)][round];
            for i in 0..16 {
                let f = match round {
                    0 => (b & c) | (!b & d),
                    1 => (b & c) | (b & d) | (c & d),
                    _ => b ^ c ^ d,
                };
                let sum = a.wrapping_add(f).wrapping_add(x[order(round, i)]).wrapping_add(constant);
                (a, d, c, b) = (d, c, b, sum.rotate_left(shifts[i % 4]));
            }
        }
        for (s, v) in state.iter_mut().zip([a, b, c, d]) {
            *s = s.wrapping_add(v);
        }
    }
    let mut out = [0; 16];
    for (o, s) in out.chunks_exact_mut(4).zip(state) {
        o.copy_from_slice(&s.to_le_bytes());
    }
    out
}

fn weak(block: &[u8]) -> (u16, u16) {
    let (mut s1, mut s2) = (0u16, 0u16);
    for b in block {
        s1 = s1.wrapping_add(u16::from(*b) + 31);
        s2 = s2.wrapping_add(s1);
    }
    (s1, s2)
}

/// A signature of `content` in blocks of `block_len`.
pub(crate) fn signature(content: &[u8], block_len: usize) -> Vec<u8> {
    let mut out = vec![0x72, 0x73, 0x01, 0x36];
    out.extend_from_slice(&(block_len as u32).to_be_bytes());
    out.extend_from_slice(&8u32.to_be_bytes());
    for block in content.chunks(block_len) {
        let (s1, s2) = weak(block);
        out.extend_from_slice(&s2.to_be_bytes());
        out.extend_from_slice(&s1.to_be_bytes());
        out.extend_from_slice(&md4(block)[..8]);
    }
    out
}

/// Matches of `new` against blocks of `old`, as literal and copied ranges of `new`: (start in new, len, from in old).
fn matches(old: &[u8], new: &[u8], block_len: usize) -> Vec<(usize, usize, Option<usize>)> {
    let mut blocks: HashMap<(u16, u16), Vec<usize>> = HashMap::new();
    for (i, block) in old.chunks_exact(block_len).enumerate() {
        let found = blocks.entry(weak(block)).or_default();
        if found.len() < 8 {
            found.push(i * block_len);
        }
    }
    let mut out: Vec<(usize, usize, Option<usize>)> = Vec::new();
    let mut emit = |at: usize, len: usize, from: Option<usize>| {
        if len == 0 {
            return;
        }
        if let Some((_, last, was)) = out.last_mut() {
            let joins = match (*was, from) {
                (None, None) => true,
                (Some(was), Some(from)) => was + *last == from,
                _ => false,
            };
            if joins {
                *last += len;
                return;
            }
        }
        out.push((at, len, from));
    };
    let (mut at, mut literal) = (0, 0);
    let mut rolling = None;
    while at + block_len <= new.len() {
        let window = &new[at..at + block_len];
        let (s1, s2) = rolling.unwrap_or_else(|| weak(window));
        let found = blocks
            .get(&(s1, s2))
            .and_then(|places| places.iter().copied().find(|from| &old[*from..*from + block_len] == window));
        if let Some(from) = found {
            emit(literal, at - literal, None);
            emit(at, block_len, Some(from));
            at += block_len;
            literal = at;
            rolling = None;
        } else {
            rolling = new.get(at + block_len).map(|next| {
                let gone = u16::from(new[at]) + 31;
                let s1_new = s1.wrapping_sub(gone).wrapping_add(u16::from(*next) + 31);
                (s1_new, s2.wrapping_sub(gone.wrapping_mul(block_len as u16)).wrapping_add(s1_new))
            });
            at += 1;
        }
    }
    // the short last block of the old content
    let tail = old.len() % block_len;
    if tail > 0 && new.len() - literal >= tail && new.ends_with(&old[old.len() - tail..]) {
        emit(literal, new.len() - literal - tail, None);
        emit(new.len() - tail, tail, Some(old.len() - tail));
    } else {
        emit(literal, new.len() - literal, None);
    }
    out
}

fn number(out: &mut Vec<u8>, value: usize, width: usize) {
    out.extend_from_slice(&(value as u64).to_be_bytes()[8 - width..]);
}

/// A legal width of 1, 2, 4 or 8 bytes (its logarithm) for `value`: the smallest one, mostly.
fn width(value: usize, dice: &mut Dice) -> usize {
    let least = [0xff, 0xffff, 0xffff_ffff].iter().filter(|max| value > **max).count();
    if dice.one_in(3) { least + dice.below(4 - least) } else { least }
}

/// A delta from `old` to `new`, and its commands. Randomly splits commands and widens their fields: all of it legal.
pub(crate) fn delta(old: &[u8], new: &[u8], block_len: usize, dice: &mut Dice) -> (Vec<u8>, Vec<Op>) {
    let (mut stream, mut ops) = (vec![0x72, 0x73, 0x02, 0x36], Vec::new());
    let wild = !dice.one_in(3);
    for (start, len, from) in matches(old, new, block_len) {
        let mut done = 0;
        while done < len {
            let rest = len - done;
            let max_len = if from.is_none() { rest.min(65_536) } else { rest };
            let take = if wild && dice.one_in(3) { 1 + dice.below(max_len) } else { max_len };
            match from {
                Some(from) => {
                    let (a, b) = (width(from + done, dice), width(take, dice));
                    stream.push(0x45 + (4 * a + b) as u8);
                    number(&mut stream, from + done, 1 << a);
                    number(&mut stream, take, 1 << b);
                    ops.push(Op::Copy { from: from + done, len: take });
                }
                None => {
                    let w = width(take, dice);
                    if take <= 64 && !dice.one_in(4) {
                        stream.push(take as u8);
                    } else {
                        stream.push(0x41 + w as u8);
                        number(&mut stream, take, 1 << w);
                    }
                    ops.push(Op::Literal { at: stream.len(), len: take });
                    stream.extend_from_slice(&new[start + done..start + done + take]);
                }
            }
            done += take;
        }
    }
    stream.push(0);
    (stream, ops)
}

/// Applies `ops` over `stream` to `old`.
pub(crate) fn patched(old: &[u8], stream: &[u8], ops: &[Op]) -> Vec<u8> {
    let mut out = Vec::new();
    for op in ops {
        match *op {
            Op::Literal { at, len } => out.extend_from_slice(&stream[at..at + len]),
            Op::Copy { from, len } => out.extend_from_slice(&old[from..from + len]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn md4_is_that_of_rfc_1320() {
        assert_eq!(hex(&md4(b"")), "31d6cfe0d16ae931b73c59d7e0c089c0");
        assert_eq!(hex(&md4(b"abc")), "a448017aaf21d8525fc10ae87aa6729d");
        let long = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        assert_eq!(hex(&md4(long)), "e33b4ddc9c38f2199c3e7b164fcc0536");
    }

    #[test]
    fn a_signature_is_the_worked_example_of_the_format_page() {
        assert_eq!(hex(&signature(b"hello\n", 512)), "7273013600000200000000080ad002d863481c78ae04c201");
        assert_eq!(hex(&signature(b"", 512)), "727301360000020000000008");
    }

    #[test]
    fn a_delta_turns_the_old_content_into_the_new() {
        for seed in 0..60u64 {
            let mut dice = Dice::new(seed);
            let size = dice.below(5000);
            let old = dice.bytes(size);
            let mut new = old.clone();
            new.rotate_left(dice.below(old.len().max(1)));
            let at = dice.below(new.len() + 1);
            new.splice(at..at, b"something new".iter().copied());
            let (stream, ops) = delta(&old, &new, 512, &mut dice);
            assert_eq!(patched(&old, &stream, &ops), new, "seed {seed}");
            assert!(size < 2000 || ops.iter().any(|op| matches!(op, Op::Copy { .. })), "nothing matched, seed {seed}");
        }
    }
}
