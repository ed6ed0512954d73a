//! A crash of an execution environment in the middle of its work.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A future that ends after a number of waits, as in a crash. It notes each wait.
pub(super) struct Crashable<F, N> {
    pub(super) work: Pin<Box<F>>,
    pub(super) waits: Option<u32>,
    pub(super) note: N,
}

impl<F: Future, N: Fn() + Unpin> Future for Crashable<F, N> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        (self.note)();
        match &mut self.waits {
            None => Poll::Pending,
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
        }
    }
}
