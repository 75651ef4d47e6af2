//! A gate in front of a connection: what has passed may have reached the node; once it is shut,
//! nothing else can.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::Stream;

/// A gate. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    shut: bool,
    passed: u64,
}

/// Messages on their way through a gate.
pub(super) struct Passage<S> {
    messages: S,
    gate: Gate,
}

impl Gate {
    /// `messages`, through the gate.
    pub(super) fn before<S>(&self, messages: S) -> Passage<S> {
        let gate = self.clone();
        Passage { messages, gate }
    }

    /// Shuts it. How many messages have passed.
    pub(super) fn shut(&self) -> u64 {
        let mut state = self.0.lock().expect("nothing panics under this lock");
        state.shut = true;
        state.passed
    }
}

impl<S: Stream + Unpin> Stream for Passage<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = &mut *self;
        let mut state = this.gate.0.lock().expect("nothing panics under this lock");
        if state.shut {
            return Poll::Ready(None);
        }
        let next = Pin::new(&mut this.messages).poll_next(context);
        state.passed += u64::from(matches!(next, Poll::Ready(Some(_))));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, StreamExt as _, stream};

    #[test]
    fn what_has_passed_is_counted_and_nothing_passes_afterwards() {
        let gate = Gate::default();
        let mut messages = gate.before(stream::iter([1, 2, 3]));
        assert_eq!(messages.next().now_or_never(), Some(Some(1)));
        assert_eq!(messages.next().now_or_never(), Some(Some(2)));
        assert_eq!(gate.shut(), 2);
        assert_eq!(messages.next().now_or_never(), Some(None));
        assert_eq!(gate.shut(), 2);
    }
}
