//! Staging: writing an image to a slot and reading it back.
