//! What the verifier thinks of the programs.

use gateway_common::maps::{PROGRAM_STEER, PROGRAM_TC, PROGRAM_XDP, PROGRAM_XDP_FRAGS};

use crate::fixtures::bed;

/// Steps that the verifier may take. Kernels refuse at a million; the margin is for those that walk
/// differently, and a change that doubles the work should be noticed.
const BOUND: u32 = 20_000;

#[test]
fn programs_are_cheap_to_verify() {
    let bed = bed();
    for name in [PROGRAM_XDP, PROGRAM_XDP_FRAGS, PROGRAM_TC, PROGRAM_STEER] {
        let info = bed
            .ebpf
            .program(name)
            .expect("a program")
            .info()
            .expect("its info");
        let steps = info
            .verified_instruction_count()
            .expect("Linux 5.16 or newer");
        println!(
            "{name}: {steps} instructions processed, {} bytes of machine code",
            info.size_jitted()
        );
        assert!(
            steps <= BOUND,
            "{name}: {steps} instructions processed, over the bound of {BOUND}"
        );
    }
}
