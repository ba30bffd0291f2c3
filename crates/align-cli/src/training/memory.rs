//! The memory that a step takes, against what the machine has.

use align_model::memory::MemoryEstimate;
use anyhow::{Result, ensure};

use super::machine::{self, Machine, bytes};

/// What a step takes, in lines for people.
pub(crate) fn described(estimate: &MemoryEstimate, process: u64) -> String {
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
    let parts = parts.into_iter().filter(|(_, size)| *size > 0);
    let parts: Vec<String> = parts.map(|(name, size)| format!("{name} {}", bytes(size))).collect();
    let machine = Machine::look();
    let there = machine.free_memory.zip(machine.memory).map_or_else(String::new, |(free, memory)| {
        format!(" (the machine has {}, {} of them free)", bytes(memory), bytes(free))
    });
    format!("about {} at most{there}: {}", bytes(estimate.total(process)), parts.join(", "))
}

/// Fails if a step takes more memory than the machine has free; `settings` is the name of the table of settings. Only for what computes in the machine's own memory.
pub(crate) fn check(estimate: &MemoryEstimate, process: u64, settings: &str) -> Result<()> {
    let needed = estimate.total(process);
    let free = Machine::look().free_memory.map(|free| free + machine::resident_memory().unwrap_or(0));
    enough(needed, free, settings)
}

fn enough(needed: u64, free: Option<u64>, settings: &str) -> Result<()> {
    let Some(free) = free else { return Ok(()) };
    ensure!(
        needed <= free,
        "a step takes about {} of memory and there are {}: lower {settings}.micro_batch_size or {settings}.max_length, set {settings}.recompute = \"layers\", or train an [adapter]",
        bytes(needed),
        bytes(free)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_a_problem() {
        assert!(enough(10, Some(10), "sft").is_ok() && enough(10, None, "sft").is_ok());
        assert!(enough(11, Some(10), "sft").unwrap_err().to_string().contains("takes about 11 bytes"));
    }
}
