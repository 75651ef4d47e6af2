//! Three whole nodes, with all that keeps them: who leads what, whatever ails the disk of one of them, and
//! whether they are alike.

mod alike; // what differs is found
mod full; // whose log is full hands over
mod slow; // so does whose disk is slow
mod trio; // three nodes that found each other
