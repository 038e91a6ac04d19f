//! Nodes and the server that collects their reports, as they are shipped: pages say what each node says of
//! itself, by the commands of `docs/fleet.md`, and no update waits for a report.

mod affected;
mod backup;
mod field;
mod hanging;
mod pages;
mod rig;
