//! Load generator, side-by-side runs, criterion benches.
