//! Keys, ceremonies, building and publishing releases. (Documentation follows with the commands.)

pub mod cli;
pub mod commands;
pub mod error;
pub mod image;
pub mod key;
pub mod plan;
pub mod progress;
pub mod published;
pub mod repository;
pub mod state;
pub mod verify;
