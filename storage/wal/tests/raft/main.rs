//! The log and the state machine as openraft uses them.

mod full; // many shards, one disk, no room
mod world; // a disk, and one voter after the other on it
mod replica; // a single voter: what it takes, joins, refuses
mod lives; // a single voter dies and comes back
mod log; // a log that lacks something, or differs
mod suite; // openraft's own suite for log stores
mod mesh; // a network of replicas in one process
mod trio; // three replicas, and more
mod three; // three replicas die, are cut off, fall behind
mod caught_up; // replicas that were opened again
mod cramped; // some of three have no room
mod members; // replicas join and leave
mod clocks; // a leader whose wall clock is wrong, and a standstill of all
mod together; // a task of openraft panics
mod streamed; // snapshots whose heads come piece by piece
mod damaged; // bytes rot under some of three
