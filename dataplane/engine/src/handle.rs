//! Control's end of a thread that owns lanes: a worker, or the slow path.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::nap::Bell;

/// A thread that looks at its commands, of kind `C`, between two rounds. It ends when this is dropped.
pub struct Handle<C> {
    /// Who that is, for messages.
    name: String,
    /// Taken, and so closed, to end the thread.
    commands: Option<Sender<C>>,
    /// Wakes it.
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl<C> Handle<C> {
    pub fn new(name: String, commands: Sender<C>, bell: Arc<Bell>, thread: JoinHandle<()>) -> Handle<C> {
        Handle { name, commands: Some(commands), bell, thread: Some(thread) }
    }

    /// What wakes the thread.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    pub fn send(&self, command: C) {
        let sent = self.commands.as_ref().map(|commands| commands.send(command));
        if !matches!(sent, Some(Ok(()))) {
            self.died();
        }
        self.bell.ring();
    }

    /// Sends a command that is answered; the answer will be here.
    pub fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> C) -> Receiver<T> {
        let (reply, answer) = bounded(1);
        self.send(command(reply));
        answer
    }

    /// Sends a command that is answered, and waits for the answer.
    pub fn fetch<T>(&self, command: impl FnOnce(Sender<T>) -> C) -> T {
        self.ask(command).recv().unwrap_or_else(|_| self.died())
    }

    /// The thread only ends when this is dropped. Should it have panicked, the queues it owned are lost, and so is the
    /// datapath.
    fn died(&self) -> ! {
        panic!("{} has died", self.name);
    }
}

impl<C> Drop for Handle<C> {
    fn drop(&mut self) {
        self.commands = None;
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
