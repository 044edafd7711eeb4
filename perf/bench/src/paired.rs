//! One backend, of which two things are measured in each of its turns.

use crate::Failure;
use crate::backend::Backend;
use crate::process::Process;
use crate::turns::Player;

/// One backend, of which two things are measured in each of its turns: two processes would differ by where their memory is.
/// Whichever is first comes after a pause, so that is the one, then the other.
pub struct Paired {
    /// The backend.
    pub backend: Backend,
    name: &'static str,
    crowds: bool,
    swapped: bool,
}

impl Paired {
    /// Of `backend`. For `name` and `crowds`, see [`Player`].
    pub fn new(backend: Backend, name: &'static str, crowds: bool) -> Paired {
        Paired { backend, name, crowds, swapped: false }
    }

    /// Measures both, `first` and `second` as they are called and returned; in the other order when it is called next.
    /// None if one of them cannot be measured.
    pub fn both<T>(
        &mut self,
        mut first: impl FnMut(&Backend) -> Result<Option<T>, Failure>,
        mut second: impl FnMut(&Backend) -> Result<Option<T>, Failure>,
    ) -> Result<Option<(T, T)>, Failure> {
        let early = if self.swapped { Some(second(&self.backend)?) } else { None };
        let Some(one) = first(&self.backend)? else { return Ok(None) };
        let other = early.map_or_else(|| second(&self.backend), Ok)?;
        self.swapped = !self.swapped;
        Ok(other.map(|other| (one, other)))
    }
}

impl Player for Paired {
    fn name(&self) -> String {
        self.name.into()
    }

    fn process(&mut self) -> &mut Process {
        self.backend.process()
    }

    fn crowds(&self) -> bool {
        self.crowds
    }
}
