//! The control API of a running daemon: is it as it says it is, and what does it cost when many ask?

mod cost;
mod description;
mod load;
mod peers;
