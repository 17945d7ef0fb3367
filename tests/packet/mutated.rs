//! Many frames that nobody would build: whatever comes, the answer is a verdict, the frame comes out as it went
//! in, and one reason is counted.

use gateway_tests::bed::{Bed, FRONTS};

use crate::fixtures::{all_frames, bed};

const FRAMES: u32 = 20_000;

#[test]
fn any_bytes_get_a_counted_verdict_and_stay_as_they_are() {
    let bed = bed();
    let seeds = all_frames();
    let mut random = Random(0x5eed_0f51_u64);
    let before = total(&bed);
    let mut runs = 0;
    for _ in 0..FRAMES {
        let frame = mutate(&seeds[random.below(seeds.len())], &mut random);
        let program = FRONTS[random.below(FRONTS.len())];
        if !Bed::accepts(program, &frame) {
            continue;
        }
        let answer = bed
            .run(program, &frame)
            .unwrap_or_else(|error| panic!("{program}: {frame:02x?}: {error:#}"));
        assert_eq!(answer.frame, frame, "{program} changed the frame");
        runs += 1;
    }
    println!("{runs} frames");
    assert!(runs > FRAMES / 2, "{runs}");
    assert_eq!(
        total(&bed) - before,
        u64::from(runs),
        "one reason for each frame"
    );
}

fn total(bed: &Bed) -> u64 {
    bed.reasons().expect("counters").values().sum()
}

/// Cuts, stretches, flips bits, overwrites bytes and words; a few of each.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(frame.len());
        match random.below(6) {
            0 => frame[at] ^= 1 << random.below(8),
            1 => frame[at] = random.next() as u8,
            2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => frame.truncate(at.max(15)),
            4 => frame.extend((0..random.below(64)).map(|_| random.next() as u8)),
            _ => {
                let end = (at + 4).min(frame.len());
                let word = (random.next() as u32).to_be_bytes();
                frame[at..end].copy_from_slice(&word[..end - at]);
            }
        }
    }
    frame
}

/// xorshift64*: the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
