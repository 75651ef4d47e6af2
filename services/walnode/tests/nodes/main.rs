//! Three whole nodes, with all that keeps them: who leads what, whatever ails the disk of one of them,
//! whether they are alike, and what they say to each other.

mod alike; // what differs is found
mod calm; // one connection carries all shards
mod full; // whose log is full hands over
mod slow; // so does whose disk is slow
mod trio; // three nodes that found each other
