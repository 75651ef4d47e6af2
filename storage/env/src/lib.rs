//! The outside world behind traits: clock, entropy, files, network, workers.
