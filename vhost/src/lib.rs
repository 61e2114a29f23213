//! A VDI as a virtio disk for virtual machines, over vhost-user.
//!
//! The rooms, from the guest inwards: `control`, what the frontend (QEMU, cloud-hypervisor, libblkio)
//! says over the socket; `ring`, the queues in its memory; `request`, what a guest asks for, taken
//! from a chain of descriptors without doing it; `inflight`, what outlasts this process; `device`,
//! the disk as a guest sees it, and what a request means for the VDI; `server`, one thread and one
//! epoll that have all of them meet.
//!
//! Data goes between guest memory and the cluster's socket without a copy.

pub mod control;
pub mod device;
pub mod inflight;
pub mod request;
pub mod ring;
pub mod server;
