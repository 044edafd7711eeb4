//! Workers and ports come, go and change while `ringwired` runs. Beside each change two guests exchange numbered
//! packets, of which none may be lost, doubled or late ([`witness`]).

mod guests;
mod nics;
mod refused;
mod tour;
mod witness;
mod workers;
