//! How the process ends: a signal that everybody holds and only moves forward.
//!
//! ```text
//! Running ──drain()──▶ Draining ──stop()──▶ Stopped
//!    └───────────────stop()──────────────────▲
//! ```

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tasks;

/// How far the process has come towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Leaving: not ready, clients are being sent away, appends on their way are waited for.
    Draining,
    /// Everything that remains ends at once.
    Stopped,
}

/// The signal. Clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)) }
    }
}

impl Shutdown {
    /// A signal that says [`Phase::Running`].
    pub fn new() -> Self {
        Self::default()
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Begins to leave.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends what remains.
    pub fn stop(&self) {
        self.advance(Phase::Stopped);
    }

    /// Resolves once draining began (at once if it has). Cancel safe.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves once stopped (at once if it is). Cancel safe.
    pub async fn stopped(&self) {
        self.reached(Phase::Stopped).await;
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            *phase = (*phase).max(to);
            forward
        });
    }

    async fn reached(&self, at_least: Phase) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= at_least).await;
    }
}

/// Turns SIGTERM and SIGINT into [`Shutdown::drain`], a second one into [`Shutdown::stop`].
///
/// # Errors
/// The signal handlers could not be installed.
pub fn listen_for_signals(shutdown: &Shutdown) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    Ok(tasks::spawn("signals", async move {
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "leaving: clients are sent away, appends on their way are waited for");
        shutdown.drain();
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "second signal: ending at once");
        shutdown.stop();
    }))
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_forward() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.phase(), Phase::Running);
        shutdown.stop();
        shutdown.drain();
        assert_eq!(shutdown.phase(), Phase::Stopped);
        shutdown.draining().await;
        shutdown.stopped().await;
    }

    #[tokio::test]
    async fn every_clone_is_woken() {
        let shutdown = Shutdown::new();
        let waiting = shutdown.clone();
        let task = tasks::spawn("waiter", async move { waiting.draining().await });
        shutdown.drain();
        task.await.unwrap();
        assert_eq!(shutdown.phase(), Phase::Draining);
    }
}
