//! The processes that this executable re-executes as, the messages between them, and starting them.

pub mod agent;
pub mod drive;
pub mod probe;
pub mod respond;
pub mod start;
pub mod supervise;
