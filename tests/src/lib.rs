//! What Sluice's kernel-facing tests, demo and benchmarks share: worlds of network namespaces,
//! backends, clients, load, and the shipped binary as a process.
