//! The log on disk against a simulated one: every crash, tear, flip and failure has the answer due.

mod crash; // kills, power cuts, failed writes and syncs, against a model
mod golden; // the bytes stay what they are
mod damage; // cut at every byte, flip every byte
mod hang; // a disk that does not answer
mod life; // restarts, recycling, moved entries, seals
mod staged; // what came with a snapshot
mod world; // a log on a simulated disk, and the calls tests make
mod rot; // damage that comes while it is open
