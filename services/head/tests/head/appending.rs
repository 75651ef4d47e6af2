//! Appends through what breaks: once, in order, or unknown.

mod breaks; // one thing breaks
mod fence; // attempts of a session, one after the other
mod storm; // everything breaks, at random
