//! The memory that a step takes, against what the machine has.

use align_model::memory::MemoryEstimate;
use anyhow::{Result, ensure};

use super::machine::{self, Machine, bytes};
use crate::method::{Beside, Settings};

/// What a step takes, in lines for people.
pub(crate) fn described(estimate: &MemoryEstimate, beside: &[Beside], process: u64) -> String {
    let parts = [
        ("weights", estimate.weights),
        ("gradients", estimate.gradients),
        ("moments", estimate.moments),
        ("average", estimate.copies),
        ("kept for the way back", estimate.kept),
        ("gradients of earlier passes", estimate.summed),
        ("one block", estimate.block),
        ("logits", estimate.logits),
    ];
    let parts = parts.into_iter().chain(beside.iter().map(|one| (one.name, one.bytes)));
    let parts = parts.filter(|(_, size)| *size > 0);
    let parts: Vec<String> = parts.map(|(name, size)| format!("{name} {}", bytes(size))).collect();
    let machine = Machine::look();
    let there = machine.free_memory.zip(machine.memory).map_or_else(String::new, |(free, memory)| {
        format!(" (the machine has {}, {} of them free)", bytes(memory), bytes(free))
    });
    format!("about {} at most{there}: {}", bytes(total(estimate, beside, process)), parts.join(", "))
}

/// Fails if a step takes more memory than the machine has free. Only for what computes in the machine's own memory.
pub(crate) fn check<C: Settings>(estimate: &MemoryEstimate, beside: &[Beside], process: u64) -> Result<()> {
    let needed = total(estimate, beside, process);
    let free = Machine::look().free_memory.map(|free| free + machine::resident_memory().unwrap_or(0));
    enough(needed, free, [C::NAME, C::LENGTH])
}

fn total(estimate: &MemoryEstimate, beside: &[Beside], process: u64) -> u64 {
    estimate.total(process) + beside.iter().map(|one| one.bytes).sum::<u64>()
}

fn enough(needed: u64, free: Option<u64>, [settings, length]: [&str; 2]) -> Result<()> {
    let Some(free) = free else { return Ok(()) };
    ensure!(
        needed <= free,
        "a step takes about {} of memory and there are {}: lower {settings}.micro_batch_size or {settings}.{length}, set {settings}.recompute = \"layers\", or train an [adapter]",
        bytes(needed),
        bytes(free)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SFT: [&str; 2] = ["sft", "max_length"];

    #[test]
    fn too_little_memory_is_a_problem() {
        assert!(enough(10, Some(10), SFT).is_ok() && enough(10, None, SFT).is_ok());
        assert!(enough(11, Some(10), SFT).unwrap_err().to_string().contains("takes about 11 bytes"));
    }
}
